//! Work dealt out by rows.

use rayon::prelude::*;

/// Rows of a part: fixed, so that sums over parts don't depend on the number of threads.
pub(crate) fn rows_per_part(width: usize) -> usize {
    (PART / width.max(1)).max(1)
}

/// Numbers per part: enough to pay for a task, few enough for the second-level cache.
const PART: usize = 1 << 14;

/// Calls `work(first row, rows of out)` for all parts of `out`, on all threads.
pub(crate) fn for_rows(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows = rows_per_part(width);
    if out.len() <= rows * width {
        return work(0, out);
    }
    out.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(part, out)| work(part * rows, out));
}

/// As [`for_rows`], with a sum of `[length]` over parts, taken in their order.
pub(crate) fn for_rows_summing(
    out: &mut [f32],
    width: usize,
    length: usize,
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut total = vec![0.0; length];
    if out.is_empty() {
        return total;
    }
    let rows = rows_per_part(width);
    let parts: Vec<Vec<f32>> = out
        .par_chunks_mut(rows * width)
        .enumerate()
        .map(|(part, out)| {
            let mut sums = vec![0.0; length];
            work(part * rows, out, &mut sums);
            sums
        })
        .collect();
    for part in parts {
        for (total, value) in total.iter_mut().zip(part) {
            *total += value;
        }
    }
    total
}

/// Sums of the columns of a row-major matrix.
pub(crate) fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    if x.is_empty() {
        return total;
    }
    let rows = rows_per_part(width);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(rows * width)
        .map(|x| {
            let mut sums = vec![0.0; width];
            for row in x.chunks_exact(width) {
                add(&mut sums, row);
            }
            sums
        })
        .collect();
    for part in parts {
        add(&mut total, &part);
    }
    total
}

fn add(total: &mut [f32], values: &[f32]) {
    for (total, value) in total.iter_mut().zip(values) {
        *total += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_visited_once() {
        for (rows, width) in [(0, 3), (1, 3), (7, 5), (5000, 7)] {
            let mut out = vec![0.0; rows * width];
            let sums = for_rows_summing(&mut out, width, 1, |first, out, sums| {
                for (i, row) in out.chunks_exact_mut(width).enumerate() {
                    row.fill((first + i) as f32);
                    sums[0] += 1.0;
                }
            });
            assert_eq!(sums, [rows as f32]);
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, &x)| x == (i / width) as f32)
            );
            let expected = rows as f32 * (rows as f32 - 1.0) / 2.0;
            for sum in column_sums(&out, width) {
                assert!((sum - expected).abs() <= 1e-5 * expected.abs());
            }
        }
    }
}
