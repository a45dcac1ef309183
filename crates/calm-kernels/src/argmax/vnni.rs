//! Products of 8-bit numbers with AVX-512 VNNI: four multiply-adds in each of 16 lanes at once.

use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use super::screen::{Candidate, Panel, Rows, WORD};

/// Rows of a tile: with two registers a row, 24 sums.
const MOST_ROWS: usize = 12;

/// Whether this machine has the instructions.
pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
    })
}

/// Raises `surely` (of the rows in `block`) to what their products reach in this panel at least,
/// and lists the entries that may be the largest so far.
///
/// # Panics
/// Where the machine lacks the instructions, or the panel is not `words` long.
pub(super) fn screen(
    rows: &Rows,
    block: Range<usize>,
    words: usize,
    panel: &Panel<'_>,
    surely: &mut [f32],
    candidates: &mut Vec<Candidate>,
) {
    assert!(available() && panel.lines.len() == words * 2 && surely.len() == block.len());
    assert!(block.end * words * WORD <= rows.numbers.len());
    for first in block.clone().step_by(MOST_ROWS) {
        let some = first..block.end.min(first + MOST_ROWS);
        let surely = &mut surely[some.start - block.start..some.end - block.start];
        macro_rules! tile {
            ($($n:literal)*) => {
                match some.len() {
                    // SAFETY: the instructions are there, the rows and the panel as long as said.
                    $($n => unsafe { tile::<$n>(rows, some.start, words, panel, surely, candidates) },)*
                    _ => unreachable!("at most {MOST_ROWS} rows"),
                }
            };
        }
        tile!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// `R` rows and one panel.
///
/// # Safety
/// The machine has the instructions; the panel has two lines for each of `words`, the rows from
/// `first` on that many words each.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const R: usize>(
    rows: &Rows,
    first: usize,
    words: usize,
    panel: &Panel<'_>,
    surely: &mut [f32],
    candidates: &mut Vec<Candidate>,
) {
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    let x = rows.numbers[first * words * WORD..].as_ptr().cast::<i32>();
    let lines = panel.lines.as_ptr().cast::<__m512i>();
    for word in 0..words {
        // SAFETY: the caller's promises; the rows' numbers may lie unaligned.
        unsafe {
            let right = [*lines.add(2 * word), *lines.add(2 * word + 1)];
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_set1_epi32(x.add(i * words + word).read_unaligned());
                sums[0] = _mm512_dpbusd_epi32(sums[0], right[0], left);
                sums[1] = _mm512_dpbusd_epi32(sums[1], right[1], left);
            }
        }
    }
    for (half, start) in [panel.first, panel.first + 16].into_iter().enumerate() {
        let count = panel.count.saturating_sub(16 * half).min(16);
        let there = ((1u32 << count) - 1) as u16;
        let of = |numbers: &[f32]| {
            let numbers = &numbers[start..start + 16];
            // SAFETY: 16 numbers.
            unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
        };
        let columns = panel.columns;
        let (scale, size, rest) = (of(&columns.scale), of(&columns.size), of(&columns.rest));
        for (i, sums) in sums.iter().enumerate() {
            let row = first + i;
            let sum = _mm512_sub_epi32(sums[half], _mm512_set1_epi32(rows.offset[row]));
            let score = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            let error = _mm512_mul_ps(rest, _mm512_set1_ps(rows.of_rest[row]));
            let error = _mm512_fmadd_ps(size, _mm512_set1_ps(rows.of_size[row]), error);
            let upper = _mm512_add_ps(score, error);
            let best = _mm512_set1_ps(surely[i]);
            let mut may = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(there, upper, best);
            if may == 0 {
                continue;
            }
            let lower = _mm512_sub_ps(score, error);
            surely[i] = surely[i].max(_mm512_mask_reduce_max_ps(may, lower));
            let mut uppers = [0.0f32; 16];
            // SAFETY: room for 16.
            unsafe { _mm512_storeu_ps(uppers.as_mut_ptr(), upper) };
            while may != 0 {
                let lane = may.trailing_zeros() as usize;
                may &= may - 1;
                if uppers[lane] >= surely[i] {
                    candidates.push(Candidate {
                        row: row as u32,
                        column: (start + lane) as u32,
                        upper: uppers[lane],
                    });
                }
            }
        }
    }
}
