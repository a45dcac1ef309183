//! The energy score position by position.

use rayon::prelude::*;

use super::{COINCIDE, KeyedDraws};
use crate::philox::{fill_normals, ln};
use calm_gemm::Shared;
use calm_gemm::lanes::exp;
use calm_gemm::simd;
use calm_gemm::simd::sum;

/// What a score is made of.
pub(super) struct Problem<'a> {
    /// `[n, positions, l]`
    pub samples: &'a [f32],
    /// `[positions, l]`
    pub mean: &'a [f32],
    /// `[positions, l]`
    pub log_std: &'a [f32],
    pub positions: usize,
    pub l: usize,
    pub draws: KeyedDraws,
    pub alpha: f32,
}

impl Problem<'_> {
    fn n(&self) -> usize {
        self.samples.len() / (self.positions * self.l).max(1)
    }

    /// The samples of one position, side by side.
    fn gather(&self, p: usize, x: &mut [f32]) {
        for (i, x) in x.chunks_exact_mut(self.l).enumerate() {
            x.copy_from_slice(&self.samples[(i * self.positions + p) * self.l..][..self.l]);
        }
    }

    /// Draw `m` of position `p`.
    fn draw(&self, m: usize, p: usize, y: &mut [f32]) {
        let fold = self.draws.fold();
        let first = (m / fold * self.positions + p) * self.l;
        fill_normals(self.draws.key, first as u64, y);
        let row = p * self.l..(p + 1) * self.l;
        let sign = if m.is_multiple_of(fold) { 1.0 } else { -1.0 };
        place(&self.mean[row.clone()], &self.log_std[row], sign, y);
    }

    /// Attraction, then repulsion, `[2, positions]`.
    pub(super) fn values(&self) -> Vec<f32> {
        let (n, l) = (self.n(), self.l);
        let both: Vec<[f32; 2]> = (0..self.positions)
            .into_par_iter()
            .map_init(
                || (vec![0.0; n * l], vec![0.0; l]),
                |(x, y), p| {
                    self.gather(p, x);
                    let mut attraction = 0.0;
                    for m in 0..self.draws.count {
                        self.draw(m, p, y);
                        for x in x.chunks_exact(l) {
                            attraction += distance(x, y, self.alpha);
                        }
                    }
                    let mut repulsion = 0.0;
                    for i in 1..n {
                        let (before, x) = x[..(i + 1) * l].split_at(i * l);
                        for y in before.chunks_exact(l) {
                            repulsion += distance(x, y, self.alpha);
                        }
                    }
                    [
                        attraction / (n * self.draws.count) as f32,
                        2.0 * repulsion / (n * (n - 1)) as f32,
                    ]
                },
            )
            .collect();
        let part = |i: usize| both.iter().map(move |both| both[i]);
        part(0).chain(part(1)).collect()
    }

    /// Writes the gradient of the samples for `grad` `[2, positions]`.
    pub(super) fn gradient(&self, grad: &[f32], out: &mut [f32]) {
        let (n, l) = (self.n(), self.l);
        let out = Shared::new(out);
        (0..self.positions).into_par_iter().for_each_init(
            || (vec![0.0; n * l], vec![0.0; n * l], vec![0.0; l]),
            |(x, dx, y), p| {
                self.gather(p, x);
                dx.fill(0.0);
                let weight = grad[p] / (n * self.draws.count) as f32;
                for m in 0..self.draws.count {
                    self.draw(m, p, y);
                    for (x, dx) in x.chunks_exact(l).zip(dx.chunks_exact_mut(l)) {
                        pull(x, y, self.alpha, weight, dx);
                    }
                }
                let weight = 2.0 * grad[self.positions + p] / (n * (n - 1)) as f32;
                for i in 0..n {
                    for k in (0..n).filter(|&k| k != i) {
                        let (x, y) = (&x[i * l..][..l], &x[k * l..][..l]);
                        pull(x, y, self.alpha, weight, &mut dx[i * l..][..l]);
                    }
                }
                for (i, dx) in dx.chunks_exact(l).enumerate() {
                    // SAFETY: these rows are this position's alone.
                    unsafe { out.write((i * self.positions + p) * l, dx) };
                }
            },
        );
    }
}

simd! {
    // Standard normal numbers become draws.
    fn place(mean: &[f32], log_std: &[f32], sign: f32, y: &mut [f32]) {
        for ((y, mean), &log_std) in y.iter_mut().zip(mean).zip(log_std) {
            *y = *y * (sign * exp(log_std)) + mean;
        }
    }
}

simd! {
    fn squared_distance(x: &[f32], y: &[f32]) -> f32 {
        let y = &y[..x.len()];
        sum(x.len(), |j| (x[j] - y[j]) * (x[j] - y[j]))
    }
}

/// `||x - y||^alpha`
fn distance(x: &[f32], y: &[f32], alpha: f32) -> f32 {
    let squared = squared_distance(x, y);
    if squared < COINCIDE {
        0.0
    } else if alpha == 1.0 {
        squared.sqrt()
    } else {
        exp(0.5 * alpha * ln(squared))
    }
}

simd! {
    // Adds `weight` times the gradient of `||x - y||^alpha` in x.
    fn pull(x: &[f32], y: &[f32], alpha: f32, weight: f32, dx: &mut [f32]) {
        let y = &y[..x.len()];
        let squared = sum(x.len(), |j| (x[j] - y[j]) * (x[j] - y[j]));
        if squared < COINCIDE {
            return;
        }
        let weight = if alpha == 1.0 {
            weight / squared.sqrt()
        } else {
            weight * alpha * exp((0.5 * alpha - 1.0) * ln(squared))
        };
        for ((dx, x), y) in dx.iter_mut().zip(x).zip(y) {
            *dx += weight * (x - y);
        }
    }
}
