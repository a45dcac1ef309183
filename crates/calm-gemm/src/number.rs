//! What weights may be kept in: f32, bf16, or whole numbers of 8 bits.

use half::bf16;

use crate::lanes::Lanes;
use crate::simd;

/// Numbers that weights are kept in. Products widen them, which is exact, and sum in f32.
pub trait Number: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// One of them as f32.
    fn float(self) -> f32;

    /// Those side by side as f32, into a place of the same length.
    fn widen(numbers: &[Self], to: &mut [f32]);

    /// The slice itself where it holds f32.
    fn plain(numbers: &[Self]) -> Option<&[f32]>;

    /// A vector of those from `numbers[at]` on.
    fn load<V: Lanes>(numbers: &[Self], at: usize) -> V;
}

impl Number for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    fn widen(numbers: &[Self], to: &mut [f32]) {
        to.copy_from_slice(numbers);
    }

    fn plain(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    #[inline(always)]
    fn load<V: Lanes>(numbers: &[Self], at: usize) -> V {
        V::load(numbers, at)
    }
}

/// The others are alike.
macro_rules! number {
    ($number:ty, $float:expr, $load:ident, $widen:ident) => {
        impl Number for $number {
            #[inline(always)]
            fn float(self) -> f32 {
                $float(self)
            }

            fn widen(numbers: &[Self], to: &mut [f32]) {
                $widen(numbers, to);
            }

            fn plain(_numbers: &[Self]) -> Option<&[f32]> {
                None
            }

            #[inline(always)]
            fn load<V: Lanes>(numbers: &[Self], at: usize) -> V {
                V::$load(numbers, at)
            }
        }

        simd! {
            fn $widen(numbers: &[$number], to: &mut [f32]) {
                assert_eq!(numbers.len(), to.len(), "as many numbers");
                for (&number, to) in numbers.iter().zip(to) {
                    *to = number.float();
                }
            }
        }
    };
}

number!(
    bf16,
    |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16),
    load_bf16,
    widen_bf16
);
number!(i8, f32::from, load_i8, widen_i8);
