//! Rotary position embedding, in the half-rotation layout of LLaMA checkpoints.

use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines for a list of positions.
///
/// With `j < head_dim / 2`, angle `a = position * theta^(-2j / head_dim)`, the pair
/// `(x[j], x[j + head_dim/2])` is rotated by `a`. (Burn's own layer rotates adjacent pairs, which
/// no LLaMA checkpoint uses.) Only differences of positions reach the attention scores.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rope {
    /// The rotation at `positions`, for heads of width `head_dim`.
    ///
    /// # Panics
    /// Where `head_dim` is odd.
    pub fn at(
        positions: impl IntoIterator<Item = usize>,
        head_dim: usize,
        theta: f64,
        device: &Device,
    ) -> Self {
        assert!(head_dim.is_multiple_of(2), "head width {head_dim} is odd");
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|j| theta.powf(-2.0 * j as f64 / head_dim as f64))
            .collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in &frequencies {
                // f64, so that the angle is exact to f32 at any position.
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        let rows = cos.len() / half;
        let upload = |v| Tensor::from_data(TensorData::new(v, [rows, half]), device);
        Self {
            cos: upload(cos),
            sin: upload(sin),
        }
    }

    /// Rotates every head of queries or keys.
    ///
    /// # Shapes
    /// - x: `[batch, positions, heads * head_dim]`
    /// - output: the same
    pub fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        calm_kernels::rope(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    #[test]
    fn a_quarter_turn_swaps_the_halves() {
        let device = Device::flex();
        // head_dim 2: the only frequency is 1, so the angle is the position.
        let rope = Rope::at([0, 1], 2, 10_000.0, &device);
        let x = Tensor::<3>::from_data([[[1.0, 0.0], [1.0, 0.0]]], &device);
        let (s, c) = 1f64.sin_cos();
        rope.rotate(x).into_data().assert_approx_eq::<f32>(
            &TensorData::from([[[1.0, 0.0], [c as f32, s as f32]]]),
            Tolerance::absolute(1e-6),
        );
    }

    #[test]
    fn scores_depend_on_position_differences_only() {
        let device = Device::flex();
        let mut stream = crate::RandomStream::new(2);
        let mut draw = || {
            let data = TensorData::new(stream.normal(8), [1, 1, 8]);
            Tensor::<3>::from_data(data, &device)
        };
        let (q, k) = (draw(), draw());
        let score = |i: usize, j: usize| -> f32 {
            let rotate = |x: &Tensor<3>, p| Rope::at([p], 8, 10_000.0, &device).rotate(x.clone());
            (rotate(&q, i) * rotate(&k, j)).sum().into_scalar()
        };
        approx::assert_abs_diff_eq!(score(3, 1), score(102, 100), epsilon = 1e-4);
        assert!((score(3, 1) - score(5, 1)).abs() > 1e-3);
    }
}
