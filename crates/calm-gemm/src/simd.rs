//! Loops that the compiler turns into the widest vectors the machine has.

use std::sync::OnceLock;

/// Instruction sets that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the program was compiled for.
    Base,
    /// AVX2 and FMA.
    Middle,
    /// AVX-512 F, BW, DQ and VL.
    Wide,
}

/// The best that this machine has and `CALM_ISA` (`base`, `avx2`, `avx512`) allows.
///
/// # Panics
/// Where `CALM_ISA` is none of these: a misspelt test would test something else.
pub fn level() -> Level {
    static FOUND: OnceLock<Level> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let allowed = match std::env::var("CALM_ISA").as_deref() {
            Err(_) | Ok("avx512") => Level::Wide,
            Ok("avx2") => Level::Middle,
            Ok("base") => Level::Base,
            Ok(other) => panic!("CALM_ISA is base, avx2 or avx512, not {other:?}"),
        };
        detected().min(allowed)
    })
}

fn detected() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let middle = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if middle {
            return if wide { Level::Wide } else { Level::Middle };
        }
    }
    Level::Base
}

/// Compiles a function once per instruction set and picks at run time.
#[macro_export]
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn base($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::{Level, level};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $out)? {
                    base($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) $(-> $out)? {
                    base($($arg),*)
                }
                match level() {
                    // SAFETY: the features were found.
                    Level::Wide => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    Level::Middle => return unsafe { middle($($arg),*) },
                    Level::Base => {}
                }
            }
            base($($arg),*)
        }
    };
}
/// Numbers that are summed side by side: the order of a sum, and so its rounding, is the same on
/// every machine.
const LANES: usize = 32;

/// `sum of f(i) for i < n`, in 32 partial sums.
#[inline(always)]
pub fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut partial = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut first = 0;
    while first < whole {
        for (lane, partial) in partial.iter_mut().enumerate() {
            *partial += f(first + lane);
        }
        first += LANES;
    }
    for (lane, partial) in partial.iter_mut().enumerate().take(n - whole) {
        *partial += f(whole + lane);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right_at_any_length() {
        for n in [0, 1, 31, 32, 33, 100, 1000] {
            assert_eq!(sum(n, |i| i as f32), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
