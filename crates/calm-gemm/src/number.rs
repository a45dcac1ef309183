//! What the right factor of a product and the table of a search may hold: f32 or bf16.

use std::borrow::Cow;

use half::bf16;

use crate::lanes::Lanes;
use crate::simd;

/// Numbers that weights are kept in. Products widen them, which is exact, and sum in f32.
pub trait Number: Copy + Default + Send + Sync + 'static {
    /// As f32.
    fn floats(numbers: &[Self]) -> Cow<'_, [f32]>;

    /// The same into a place of the same length.
    fn widen(numbers: &[Self], to: &mut [f32]);

    /// One of them.
    fn float(self) -> f32;

    /// The slice itself where it holds f32.
    #[doc(hidden)]
    fn plain(numbers: &[Self]) -> Option<&[f32]>;

    /// A vector of those from `numbers[at]` on.
    #[doc(hidden)]
    fn load<V: Lanes>(numbers: &[Self], at: usize) -> V;
}

impl Number for f32 {
    fn floats(numbers: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(numbers)
    }

    fn widen(numbers: &[Self], to: &mut [f32]) {
        to.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    fn plain(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    #[inline(always)]
    fn load<V: Lanes>(numbers: &[Self], at: usize) -> V {
        V::load(numbers, at)
    }
}

impl Number for bf16 {
    fn floats(numbers: &[Self]) -> Cow<'_, [f32]> {
        let mut wide = vec![0.0; numbers.len()];
        widen(numbers, &mut wide);
        Cow::Owned(wide)
    }

    fn widen(numbers: &[Self], to: &mut [f32]) {
        widen(numbers, to);
    }

    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn plain(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn load<V: Lanes>(numbers: &[Self], at: usize) -> V {
        V::load_bf16(numbers, at)
    }
}

simd! {
    fn widen(numbers: &[bf16], to: &mut [f32]) {
        assert_eq!(numbers.len(), to.len(), "as many numbers");
        for (&number, to) in numbers.iter().zip(to) {
            *to = number.float();
        }
    }
}
