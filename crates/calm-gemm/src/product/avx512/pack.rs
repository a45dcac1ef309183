//! Copies blocks of a factor into the order in which the kernels read them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::Mat;
use super::super::blocks::{AHEAD, Kernel, Left, panels};
use super::{Bf16, F32};

/// How a kernel's words are made of numbers.
pub(super) trait Packed: Kernel {
    /// Packs values of neighbouring depth.
    fn word(values: [f32; 2]) -> Self::Word;
    /// Packs up to 16 neighbours at one word of depth, those in `mask`; `second` is ignored where
    /// `DEPTH` is 1.
    ///
    /// # Safety
    /// The machine has the instructions, and `to` has room for the words in `mask`.
    unsafe fn sixteen(first: __m512, second: __m512, mask: u16, to: *mut Self::Word);
}

impl Packed for F32 {
    #[inline(always)]
    fn word(values: [f32; 2]) -> f32 {
        values[0]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sixteen(first: __m512, _: __m512, mask: u16, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_storeu_ps(to, mask, first) };
    }
}

/// The earlier value is in the low half.
impl Packed for Bf16 {
    #[inline(always)]
    fn word(values: [f32; 2]) -> u32 {
        u32::from(round(values[0])) | u32::from(round(values[1])) << 16
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn sixteen(first: __m512, second: __m512, mask: u16, to: *mut u32) {
        let low = round_sixteen(first);
        let high = round_sixteen(second);
        let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_storeu_epi32(to.cast(), mask, both) };
    }
}

/// Rounds rows that lie side by side in memory, word after word.
///
/// # Safety
/// The machine has the instructions; the ranges lie inside the matrix, whose `col_stride` is 1.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn rounded_rows(
    a: Mat<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    to: &mut Vec<u32>,
) -> Left<u32> {
    let words = depth.len().div_ceil(2);
    to.clear();
    to.reserve(rows.len() * words);
    for row in rows {
        let row = &a.data[row * a.row_stride..][depth.clone()];
        let (whole, rest) = row.split_at(row.len() / 32 * 32);
        for values in whole.chunks_exact(32) {
            // SAFETY: 32 numbers are there, and 512 bits are 16 words.
            let words: [u32; 16] = unsafe {
                let low = _mm512_loadu_ps(values.as_ptr());
                let high = _mm512_loadu_ps(values.as_ptr().add(16));
                std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
            };
            to.extend_from_slice(&words);
        }
        for pair in rest.chunks(2) {
            to.push(Bf16::word([pair[0], pair.get(1).copied().unwrap_or(0.0)]));
        }
    }
    let (start, row, step) = (to.as_ptr(), words, 1);
    Left { start, row, step }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round_sixteen(x: __m512) -> __m512i {
    // SAFETY: both are 256 bits of plain data.
    let bits: __m256i = unsafe { std::mem::transmute(_mm512_cvtneps_pbh(x)) };
    _mm512_cvtepu16_epi32(bits)
}

/// Round to nearest, ties to even; numbers below the normal range become 0, as the instruction
/// makes them.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    if bits & 0x7F80_0000 == 0 {
        return ((bits >> 16) & 0x8000) as u16;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// Packs rows `rows` and depth `depth` of `a` into panels of `WIDTH` rows, the last one filled up
/// with zeros. (Columns of a right factor are rows of its transpose.)
///
/// # Safety
/// The machine has the instructions of `P`; the ranges lie inside the matrix.
pub(super) unsafe fn pack<P: Packed, const WIDTH: usize>(
    a: Mat<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    to: &mut Vec<P::Word>,
) {
    let words = depth.len().div_ceil(P::DEPTH);
    panels(rows, words, WIDTH, to, |first, count, out| {
        // SAFETY: the panel lies inside the matrix.
        unsafe {
            if a.row_stride == 1 {
                along_rows::<P, WIDTH>(a, first, count, depth.clone(), out);
            } else {
                along_depth::<P, WIDTH>(a, first, count, depth.clone(), out);
            }
        }
    });
}

/// Neighbouring rows are neighbours in memory: 16 at a time.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f")]
unsafe fn along_rows<P: Packed, const WIDTH: usize>(
    a: Mat<'_>,
    first: usize,
    count: usize,
    depth: Range<usize>,
    out: &mut [P::Word],
) {
    let base = a.data.as_ptr();
    for (word, out) in out.chunks_exact_mut(WIDTH).enumerate() {
        let d = depth.start + word * P::DEPTH;
        for start in (0..count).step_by(16) {
            let mask = lanes(count - start);
            // SAFETY: masked lanes are neither read nor written; the others lie inside matrix and
            // panel.
            unsafe {
                let at = |d: usize| {
                    let at = first + start + d * a.col_stride;
                    // Rows far apart are not foreseen by the machine.
                    _mm_prefetch::<_MM_HINT_T0>(
                        base.wrapping_add(at + AHEAD * a.col_stride).cast(),
                    );
                    _mm512_maskz_loadu_ps(mask, base.add(at))
                };
                let one = at(d);
                let two = if P::DEPTH == 2 && d + 1 < depth.end {
                    at(d + 1)
                } else {
                    _mm512_setzero_ps()
                };
                P::sixteen(one, two, mask, out.as_mut_ptr().add(start));
            }
        }
    }
}

/// Rows are read along the depth, 16 steps at a time, and transposed.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f")]
unsafe fn along_depth<P: Packed, const WIDTH: usize>(
    a: Mat<'_>,
    first: usize,
    count: usize,
    depth: Range<usize>,
    out: &mut [P::Word],
) {
    let base = a.data.as_ptr();
    let mut d = depth.start;
    while a.col_stride == 1 && d + 16 <= depth.end {
        for start in (0..count).step_by(16) {
            let mut tile = [_mm512_setzero_ps(); 16];
            for (i, row) in tile.iter_mut().enumerate().take((count - start).min(16)) {
                // SAFETY: row and depth lie inside the matrix.
                *row = unsafe { _mm512_loadu_ps(base.add((first + start + i) * a.row_stride + d)) };
            }
            let tile = transpose(tile);
            let mask = lanes(count - start);
            let first_word = (d - depth.start) / P::DEPTH;
            assert!((first_word + 16 / P::DEPTH) * WIDTH <= out.len());
            for (i, columns) in tile.chunks_exact(P::DEPTH).enumerate() {
                let second = columns[P::DEPTH - 1];
                // SAFETY: the words lie inside the panel, as was just checked.
                unsafe {
                    let to = out.as_mut_ptr().add((first_word + i) * WIDTH + start);
                    P::sixteen(columns[0], second, mask, to);
                }
            }
        }
        d += 16;
    }
    while d < depth.end {
        let word = (d - depth.start) / P::DEPTH;
        for i in 0..count {
            let value = |d: usize| {
                if d < depth.end {
                    a.data[(first + i) * a.row_stride + d * a.col_stride]
                } else {
                    0.0
                }
            };
            out[word * WIDTH + i] = P::word([value(d), value(d + 1)]);
        }
        d += P::DEPTH;
    }
}

/// The lowest `n` lanes, at most 16.
#[inline(always)]
pub(super) fn lanes(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: [__m512; 16]) -> [__m512; 16] {
    // Pairs, then fours within each quarter, then the quarters.
    let mut y = [_mm512_setzero_ps(); 16];
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    let mut z = [_mm512_setzero_ps(); 16];
    for i in 0..4 {
        let b = 4 * i;
        let wide = |v: __m512| _mm512_castps_pd(v);
        let back = |v: __m512d| _mm512_castpd_ps(v);
        z[b] = back(_mm512_unpacklo_pd(wide(y[b]), wide(y[b + 2])));
        z[b + 1] = back(_mm512_unpackhi_pd(wide(y[b]), wide(y[b + 2])));
        z[b + 2] = back(_mm512_unpacklo_pd(wide(y[b + 1]), wide(y[b + 3])));
        z[b + 3] = back(_mm512_unpackhi_pd(wide(y[b + 1]), wide(y[b + 3])));
    }
    // z[4 g + c] holds, in quarter q, column 4 q + c of rows 4 g .. 4 g + 4.
    let mut out = [_mm512_setzero_ps(); 16];
    for c in 0..4 {
        let low = _mm512_shuffle_f32x4::<0x88>(z[c], z[4 + c]);
        let high = _mm512_shuffle_f32x4::<0x88>(z[8 + c], z[12 + c]);
        let low_odd = _mm512_shuffle_f32x4::<0xDD>(z[c], z[4 + c]);
        let high_odd = _mm512_shuffle_f32x4::<0xDD>(z[8 + c], z[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(low, high);
        out[8 + c] = _mm512_shuffle_f32x4::<0xDD>(low, high);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd);
        out[12 + c] = _mm512_shuffle_f32x4::<0xDD>(low_odd, high_odd);
    }
    out
}
