//! Vectors of neighbouring numbers that stay in a register: one kernel's text for every
//! instruction set, where the compiler's own vectors would go through memory.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector of `N` numbers. The methods are safe to call where the machine has the instructions,
/// which is what the caller of a `by_level!` function has checked.
pub(crate) trait Lanes: Copy {
    const N: usize;

    fn zero() -> Self;

    fn splat(x: f32) -> Self;

    /// The numbers from `data[at]` on.
    ///
    /// # Panics
    /// Where they lie outside.
    fn load(data: &[f32], at: usize) -> Self;

    /// The reverse of [`Lanes::load`].
    fn store(self, data: &mut [f32], at: usize);

    /// `self + a b`
    fn add_product(self, a: Self, b: Self) -> Self;

    fn total(self) -> f32;
}

/// Vectors in plain Rust, for the machines without one of the sets below.
impl Lanes for [f32; 8] {
    const N: usize = 8;

    #[inline(always)]
    fn zero() -> Self {
        [0.0; 8]
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }

    #[inline(always)]
    fn load(data: &[f32], at: usize) -> Self {
        data[at..at + 8].try_into().expect("eight numbers")
    }

    #[inline(always)]
    fn store(self, data: &mut [f32], at: usize) {
        data[at..at + 8].copy_from_slice(&self);
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + a[i] * b[i])
    }

    #[inline(always)]
    fn total(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! lanes {
    ($vector:ty, $n:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $fma:ident, $total:expr) => {
        // SAFETY, throughout: the trait's condition on the machine; loads and stores stay inside
        // the slices, whose ends are checked.
        impl Lanes for $vector {
            const N: usize = $n;

            #[inline(always)]
            fn zero() -> Self {
                unsafe { $zero() }
            }

            #[inline(always)]
            fn splat(x: f32) -> Self {
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn load(data: &[f32], at: usize) -> Self {
                unsafe { $load(data[at..at + $n].as_ptr()) }
            }

            #[inline(always)]
            fn store(self, data: &mut [f32], at: usize) {
                unsafe { $store(data[at..at + $n].as_mut_ptr(), self) }
            }

            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                unsafe { $fma(a, b, self) }
            }

            #[inline(always)]
            fn total(self) -> f32 {
                $total(self)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
lanes!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    |x| unsafe { std::mem::transmute::<__m256, [f32; 8]>(x) }.total()
);
#[cfg(target_arch = "x86_64")]
lanes!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    |x| unsafe { _mm512_reduce_add_ps(x) }
);

/// Makes a function of a kernel that is generic over [`Lanes`] and the given constants: compiled
/// once for each instruction set, picked at run time.
macro_rules! by_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident [$($constant:literal),*]) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::simd::{Level, level};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) {
                    $kernel::<std::arch::x86_64::__m512 $(, $constant)*>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) {
                    $kernel::<std::arch::x86_64::__m256 $(, $constant)*>($($arg),*)
                }
                match level() {
                    // SAFETY: the features were found.
                    Level::Wide => return unsafe { wide($($arg),*) },
                    Level::Middle => return unsafe { middle($($arg),*) },
                    Level::Base => {}
                }
            }
            $kernel::<[f32; 8] $(, $constant)*>($($arg),*)
        }
    };
}
pub(crate) use by_level;
