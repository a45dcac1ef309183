//! AVX2: products of 8 bits are summed up in pairs to 16 bits (and would be cut off beyond them),
//! these in pairs to 32.

use std::arch::x86_64::*;

use super::{Line, PANEL, WORD};
use crate::simd::{Level, level};

/// Rows at a time: with two registers a row, eight sums; one or two rows take four each.
pub(super) const ROWS: usize = 4;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    level() >= Level::Middle
}

/// `R` rows and one panel.
///
/// # Safety
/// The machine has the instructions; x has `R` rows of `words`, the panel two lines a word.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tile<const R: usize>(
    x: &[i8],
    words: usize,
    panel: &[Line],
    out: &mut [[i32; PANEL]; R],
) {
    debug_assert!(x.len() == R * words * WORD && panel.len() == 2 * words);
    // SAFETY: the caller's promises.
    unsafe {
        if R <= 2 {
            part::<R, 4>(x, words, panel, 0, out);
        } else {
            part::<R, 2>(x, words, panel, 0, out);
            part::<R, 2>(x, words, panel, 2, out);
        }
    }
}

/// `R` rows and `C` of the four registers that a word of the panel fills.
///
/// # Safety
/// As for [`tile`]; `first + C` is at most 4.
#[target_feature(enable = "avx2")]
unsafe fn part<const R: usize, const C: usize>(
    x: &[i8],
    words: usize,
    panel: &[Line],
    first: usize,
    out: &mut [[i32; PANEL]; R],
) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); C]; R];
    let x = x.as_ptr().cast::<i32>();
    let registers = panel.as_ptr().cast::<__m256i>();
    for word in 0..words {
        // SAFETY: the caller's promises; the rows' numbers may lie unaligned.
        unsafe {
            let right: [__m256i; C] = std::array::from_fn(|j| *registers.add(4 * word + first + j));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_set1_epi32(x.add(i * words + word).read_unaligned());
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    let pairs = _mm256_maddubs_epi16(right, left);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        let out = out.chunks_exact_mut(8).skip(first);
        for (&sum, out) in sums.iter().zip(out) {
            // SAFETY: room for 8.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
        }
    }
}
