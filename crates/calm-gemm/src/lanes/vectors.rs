//! The vectors themselves.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

use super::Lanes;
use crate::number::Number;

/// Single numbers: the ends of rows, and loops that the compiler makes vectors of.
impl Lanes for f32 {
    const N: usize = 1;

    #[inline(always)]
    fn zero() -> Self {
        0.0
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load(data: &[f32], at: usize) -> Self {
        data[at]
    }

    #[inline(always)]
    fn load_bf16(data: &[bf16], at: usize) -> Self {
        data[at].float()
    }

    #[inline(always)]
    fn load_i8(data: &[i8], at: usize) -> Self {
        data[at].float()
    }

    #[inline(always)]
    fn store(self, data: &mut [f32], at: usize) {
        data[at] = self;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }

    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        if self < low { low } else { self }
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        if self > high { high } else { self }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        f32::from_bits(self.to_bits().wrapping_shl(23).wrapping_add(127 << 23))
    }

    #[inline(always)]
    fn total(self) -> f32 {
        self
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self
    }
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
    fn load_bf16(data: &[bf16], at: usize) -> Self {
        let data: &[bf16; 8] = data[at..at + 8].try_into().expect("eight numbers");
        data.map(Number::float)
    }

    #[inline(always)]
    fn load_i8(data: &[i8], at: usize) -> Self {
        let data: &[i8; 8] = data[at..at + 8].try_into().expect("eight numbers");
        data.map(Number::float)
    }

    #[inline(always)]
    fn store(self, data: &mut [f32], at: usize) {
        data[at..at + 8].copy_from_slice(&self);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + a[i] * b[i])
    }

    #[inline(always)]
    fn at_least(self, low: Self) -> Self {
        std::array::from_fn(|i| self[i].at_least(low[i]))
    }

    #[inline(always)]
    fn at_most(self, high: Self) -> Self {
        std::array::from_fn(|i| self[i].at_most(high[i]))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.map(f32::power_of_two)
    }

    #[inline(always)]
    fn total(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.into_iter().fold(f32::NEG_INFINITY, f32::at_least)
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! lanes {
    (
        $vector:ty, $n:literal, $zero:ident, $splat:ident, $load:ident, $load_bf16:expr, $load_i8:expr,
        $store:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident, $max:ident, $min:ident, $power:expr, $total:expr,
        $largest:expr
    ) => {
        impl Lanes for $vector {
            const N: usize = $n;

            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $zero() }
            }

            #[inline(always)]
            fn splat(x: f32) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn load(data: &[f32], at: usize) -> Self {
                // SAFETY: the machine has the instruction, and the end of the slice is checked.
                unsafe { $load(data[at..at + $n].as_ptr()) }
            }

            #[inline(always)]
            fn load_bf16(data: &[bf16], at: usize) -> Self {
                // SAFETY: the machine has the instruction, and the end of the slice is checked; a bf16
                // is the upper half of an f32.
                unsafe { $load_bf16(data[at..at + $n].as_ptr()) }
            }

            #[inline(always)]
            fn load_i8(data: &[i8], at: usize) -> Self {
                // SAFETY: the machine has the instruction, and the end of the slice is checked.
                unsafe { $load_i8(data[at..at + $n].as_ptr()) }
            }

            #[inline(always)]
            fn store(self, data: &mut [f32], at: usize) {
                // SAFETY: the machine has the instruction, and the end of the slice is checked.
                unsafe { $store(data[at..at + $n].as_mut_ptr(), self) }
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $add(self, other) }
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $sub(self, other) }
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $mul(self, other) }
            }

            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $fma(a, b, self) }
            }

            // The instructions give their second operand where one is no number.

            #[inline(always)]
            fn at_least(self, low: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $max(low, self) }
            }

            #[inline(always)]
            fn at_most(self, high: Self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $min(high, self) }
            }

            #[inline(always)]
            fn power_of_two(self) -> Self {
                // SAFETY: the machine has the instruction, by the trait's condition.
                unsafe { $power(self) }
            }

            #[inline(always)]
            fn total(self) -> f32 {
                $total(self)
            }

            #[inline(always)]
            fn largest(self) -> f32 {
                $largest(self)
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
    |at: *const bf16| {
        let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper))
    },
    |at: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))),
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    |x| {
        let bits = _mm256_slli_epi32::<23>(_mm256_castps_si256(x));
        _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(127 << 23)))
    },
    |x| {
        // SAFETY: a vector is the array of its numbers.
        unsafe { std::mem::transmute::<__m256, [f32; 8]>(x) }.total()
    },
    |x| {
        // SAFETY: as above.
        unsafe { std::mem::transmute::<__m256, [f32; 8]>(x) }.largest()
    }
);
#[cfg(target_arch = "x86_64")]
lanes!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    |at: *const bf16| {
        let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
    },
    |at: *const i8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))),
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    |x| {
        let bits = _mm512_slli_epi32::<23>(_mm512_castps_si512(x));
        _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(127 << 23)))
    },
    |x| {
        // SAFETY: the machine has the instruction, by the trait's condition.
        unsafe { _mm512_reduce_add_ps(x) }
    },
    |x| {
        // SAFETY: a vector is the array of its numbers.
        let [low, high] = unsafe { std::mem::transmute::<__m512, [[f32; 8]; 2]>(x) };
        low.at_least(high).largest()
    }
);
