//! The energy score in CubeCL: a cube for each position. Draws are made where they are needed, in
//! both passes, and no distance is stored.

use burn::backend::{ops::FloatTensorOps, tensor::FloatTensor};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::{COINCIDE, EnergyOps, KeyedDraws};
use crate::cube::philox::normals;
use crate::cube::{empty, floats, len, per_row, scratch, sum};

/// Units of a cube of the backward pass, and draws between two barriers: every one of them makes
/// one draw, then every one of them four dimensions of all draws.
const DRAWS: u32 = 32;

/// `||x||^alpha` from the square of the norm.
#[cube]
fn power(squared: f32, alpha: f32, #[comptime] plain: bool) -> f32 {
    let mut distance = 0.0f32.runtime();
    if squared >= COINCIDE {
        if comptime!(plain) {
            distance = squared.sqrt();
        } else {
            distance = squared.powf(0.5f32 * alpha);
        }
    }
    distance
}

/// What the difference is multiplied by in the gradient of `||x||^alpha`.
#[cube]
fn slope(squared: f32, alpha: f32, #[comptime] plain: bool) -> f32 {
    let mut factor = 0.0f32.runtime();
    if squared >= COINCIDE {
        if comptime!(plain) {
            factor = 1.0f32 / squared.sqrt();
        } else {
            factor = alpha * squared.powf(0.5f32 * alpha - 1.0f32);
        }
    }
    factor
}

/// Where the numbers of a problem lie: `n` samples `[n, positions, 4 blocks]`, position `p`.
#[derive(CubeType, Clone, Copy)]
struct Place {
    p: u32,
    positions: u32,
    blocks: u32,
    key_low: u32,
    key_high: u32,
    /// Draws that share one eps, but for its sign: 1 or 2.
    fold: u32,
}

#[cube]
impl Place {
    /// First entry of a block of four in mean and std.
    fn row(&self, block: u32) -> usize {
        4 * (self.p * self.blocks + block) as usize
    }

    /// Between a sample and the next.
    fn stride(&self) -> usize {
        4 * (self.positions * self.blocks) as usize
    }

    /// The four numbers of a draw's block.
    fn eps(&self, draw: u32, block: u32) -> Array<f32> {
        let counter = (draw / self.fold * self.positions + self.p) * self.blocks + block;
        normals(self.key_low, self.key_high, counter)
    }

    /// What they are multiplied by.
    fn sign(&self, draw: u32) -> f32 {
        1.0f32 - 2.0f32 * f32::cast_from(draw % self.fold)
    }
}

/// Squared distances of a draw to all samples.
#[cube]
fn to_draw(
    samples: &[f32],
    mean: &[f32],
    std: &[f32],
    place: &Place,
    draw: u32,
    #[comptime] n: usize,
) -> Array<f32> {
    let mut squared = Array::<f32>::new(n);
    #[unroll]
    for i in 0..n {
        squared[i] = 0.0f32;
    }
    let sign = place.sign(draw);
    for block in 0..place.blocks {
        let eps = place.eps(draw, block);
        let row = place.row(block);
        #[unroll]
        for j in 0..4usize {
            let y = mean[row + j] + std[row + j] * sign * eps[j];
            #[unroll]
            for i in 0..n {
                let off = samples[i * place.stride() + row + j] - y;
                squared[i] += off * off;
            }
        }
    }
    squared
}

/// The squared distance of two samples.
#[cube]
fn between(samples: &[f32], place: &Place, i: usize, k: usize) -> f32 {
    let mut squared = 0.0f32.runtime();
    let row = place.row(0u32);
    for j in 0..4 * place.blocks as usize {
        let at = row + j;
        let off = samples[i * place.stride() + at] - samples[k * place.stride() + at];
        squared += off * off;
    }
    squared
}

/// `out` is `[2, positions]`.
#[cube(launch)]
fn values(
    samples: &[f32],
    mean: &[f32],
    std: &[f32],
    out: &mut [f32],
    positions: u32,
    blocks: u32,
    draws: u32,
    key_low: u32,
    key_high: u32,
    fold: u32,
    alpha: f32,
    #[comptime] n: usize,
    #[comptime] plain: bool,
) {
    let mut scratch = scratch();
    let p = CUBE_POS as u32;
    if p < positions {
        let place = Place {
            p,
            positions,
            blocks,
            key_low,
            key_high,
            fold,
        };
        let mut attraction = 0.0f32.runtime();
        let mut draw = UNIT_POS;
        while draw < draws {
            let squared = to_draw(samples, mean, std, &place, draw, n);
            #[unroll]
            for i in 0..n {
                attraction += power(squared[i], alpha, plain);
            }
            draw += CUBE_DIM;
        }
        let mut repulsion = 0.0f32.runtime();
        let mut pair = UNIT_POS as usize;
        while pair < n * n {
            if pair / n < pair % n {
                let squared = between(samples, &place, pair / n, pair % n);
                repulsion += power(squared, alpha, plain);
            }
            pair += CUBE_DIM as usize;
        }
        let attraction = sum(attraction, &mut scratch);
        let repulsion = sum(repulsion, &mut scratch);
        if UNIT_POS == 0 {
            let pulls = f32::cast_from(n) * f32::cast_from(draws);
            out[p as usize] = attraction / pulls;
            let pushes = f32::cast_from(n * (n - 1));
            out[(positions + p) as usize] = 2.0f32 * repulsion / pushes;
        }
    }
}

/// The gradient of the samples for `grad` `[2, positions]`.
#[cube(launch)]
fn gradient(
    samples: &[f32],
    mean: &[f32],
    std: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    positions: u32,
    blocks: u32,
    draws: u32,
    key_low: u32,
    key_high: u32,
    fold: u32,
    alpha: f32,
    #[comptime] n: usize,
    #[comptime] plain: bool,
) {
    let mut weights = Shared::<[f32]>::new_slice(comptime!(DRAWS as usize * n));
    let p = CUBE_POS as u32;
    if p < positions {
        let place = Place {
            p,
            positions,
            blocks,
            key_low,
            key_high,
            fold,
        };
        let unit = UNIT_POS as usize;
        let pull = grad[p as usize] / (f32::cast_from(n) * f32::cast_from(draws));
        let push = 2.0f32 * grad[(positions + p) as usize] / f32::cast_from(n * (n - 1));
        let mut pair = unit;
        while pair < n * n {
            let mut weight = 0.0f32.runtime();
            if pair / n != pair % n {
                let squared = between(samples, &place, pair / n, pair % n);
                weight = push * slope(squared, alpha, plain);
            }
            weights[pair] = weight;
            pair += CUBE_DIM as usize;
        }
        sync_cube();
        let mut block = UNIT_POS;
        while block < blocks {
            #[unroll]
            for j in 0..4usize {
                let at = place.row(block) + j;
                for i in 0..n {
                    let x = samples[i * place.stride() + at];
                    let mut total = 0.0f32.runtime();
                    for k in 0..n {
                        total += weights[i * n + k] * (x - samples[k * place.stride() + at]);
                    }
                    dx[i * place.stride() + at] = total;
                }
            }
            block += CUBE_DIM;
        }
        let mut first = 0u32.runtime();
        while first < draws {
            // The weights before are read by now.
            sync_cube();
            if first + UNIT_POS < draws {
                let squared = to_draw(samples, mean, std, &place, first + UNIT_POS, n);
                #[unroll]
                for i in 0..n {
                    weights[unit * n + i] = pull * slope(squared[i], alpha, plain);
                }
            }
            sync_cube();
            let some = min(DRAWS, draws - first);
            let mut block = UNIT_POS;
            while block < blocks {
                add_pulls(
                    samples, mean, std, &weights, dx, &place, block, first, some, n,
                );
                block += CUBE_DIM;
            }
            first += DRAWS;
        }
    }
}

/// Adds what `some` draws from `first` on do to four dimensions of all samples.
#[cube]
fn add_pulls(
    samples: &[f32],
    mean: &[f32],
    std: &[f32],
    weights: &Shared<[f32]>,
    dx: &mut [f32],
    place: &Place,
    block: u32,
    first: u32,
    some: u32,
    #[comptime] n: usize,
) {
    let row = place.row(block);
    let mut total = Array::<f32>::new(comptime!(4 * n));
    #[unroll]
    for i in 0..4 * n {
        total[i] = 0.0f32;
    }
    for m in 0..some {
        let eps = place.eps(first + m, block);
        let sign = place.sign(first + m);
        #[unroll]
        for j in 0..4usize {
            let y = mean[row + j] + std[row + j] * sign * eps[j];
            #[unroll]
            for i in 0..n {
                let off = samples[i * place.stride() + row + j] - y;
                total[4 * i + j] += weights[m as usize * n + i] * off;
            }
        }
    }
    #[unroll]
    for i in 0..n {
        #[unroll]
        for j in 0..4usize {
            dx[i * place.stride() + row + j] += total[4 * i + j];
        }
    }
}

/// What both kernels are launched with.
struct Problem {
    samples: CubeTensor,
    mean: CubeTensor,
    std: CubeTensor,
    n: usize,
    positions: usize,
    blocks: usize,
}

impl Problem {
    fn new(samples: CubeTensor, mean: CubeTensor, log_std: CubeTensor) -> Self {
        let std = CubeBackend::float_exp(log_std);
        let [samples, mean, std] = [samples, mean, std].map(floats);
        let shape = samples.meta.shape();
        let (n, positions, blocks) = (shape[0], shape[1], shape[2] / 4);
        Self {
            samples,
            mean,
            std,
            n,
            positions,
            blocks,
        }
    }
}

impl EnergyOps for CubeBackend {
    fn calm_energy(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let problem = Problem::new(samples, mean, log_std);
        let out = empty(&problem.samples, [2, problem.positions]);
        if len(&problem.samples) > 0 {
            let client = out.client.clone();
            let (count, dim) = per_row(&client, problem.positions);
            values::launch(
                &client,
                count,
                dim,
                problem.samples.into_buffer_arg(),
                problem.mean.into_buffer_arg(),
                problem.std.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                problem.positions as u32,
                problem.blocks as u32,
                draws.count as u32,
                draws.key as u32,
                (draws.key >> 32) as u32,
                draws.fold() as u32,
                alpha,
                problem.n,
                alpha == 1.0,
            );
        }
        out
    }

    fn calm_energy_backward(
        samples: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        draws: KeyedDraws,
        alpha: f32,
    ) -> FloatTensor<Self> {
        let problem = Problem::new(samples, mean, log_std);
        let dx = empty(&problem.samples, problem.samples.meta.shape().clone());
        if len(&dx) > 0 {
            let client = dx.client.clone();
            let dim = CubeDim::new_1d(DRAWS);
            let units = problem.positions * DRAWS as usize;
            gradient::launch(
                &client,
                calculate_cube_count_elemwise(&client, units, dim),
                dim,
                problem.samples.into_buffer_arg(),
                problem.mean.into_buffer_arg(),
                problem.std.into_buffer_arg(),
                floats(grad).into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                problem.positions as u32,
                problem.blocks as u32,
                draws.count as u32,
                draws.key as u32,
                (draws.key >> 32) as u32,
                draws.fold() as u32,
                alpha,
                problem.n,
                alpha == 1.0,
            );
        }
        dx
    }
}
