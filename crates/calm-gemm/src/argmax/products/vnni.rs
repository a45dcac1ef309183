//! AVX-512 VNNI: four multiply-adds in each of 16 lanes, in one instruction.

use std::arch::x86_64::*;

use super::{Line, PANEL, WORD};
use crate::simd::{Level, level};

/// Rows at a time: with two registers a row, 24 sums.
pub(super) const ROWS: usize = 12;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    level() == Level::Wide && is_x86_feature_detected!("avx512vnni")
}

/// `R` rows and one panel: two registers a row.
///
/// # Safety
/// The machine has the instructions; x has `R` rows of `words`, the panel two lines a word.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn tile<const R: usize>(
    x: &[i8],
    words: usize,
    panel: &[Line],
    out: &mut [[i32; PANEL]; R],
) {
    debug_assert!(x.len() == R * words * WORD && panel.len() == 2 * words);
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    let x = x.as_ptr().cast::<i32>();
    let lines = panel.as_ptr().cast::<__m512i>();
    for word in 0..words {
        // SAFETY: the caller's promises; the rows' numbers may lie unaligned.
        unsafe {
            let right = [*lines.add(2 * word), *lines.add(2 * word + 1)];
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_epi32(x.add(i * words + word).read_unaligned());
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = _mm512_dpbusd_epi32(*sum, right, left);
                }
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (&sum, out) in sums.iter().zip(out.chunks_exact_mut(16)) {
            // SAFETY: room for 16.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}
