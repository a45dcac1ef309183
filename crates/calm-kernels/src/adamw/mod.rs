//! AdamW in one pass over a parameter, and the norm of a gradient.

#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

use crate::has_kernel;

/// Backends with a fused optimizer step; never differentiated.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait AdamWOps: Backend {
    /// New parameter and moments.
    #[fusion(meta = |p, _, m, v, _| (p.clone(), m.clone(), v.clone()))]
    fn calm_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The sum of the squares of all entries, `[1]`.
    #[fusion(default)]
    fn calm_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(Self::float_mul(x.clone(), x))
    }
}

/// The numbers of one step of AdamW (Loshchilov and Hutter, "Decoupled weight decay
/// regularization").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Steps taken, this one included.
    pub time: i32,
}

impl AdamW {
    /// What the moments are divided by: they start at zero and would be too small at first.
    fn corrections(&self) -> (f32, f32) {
        let grown = |beta: f32| 1.0 - beta.powi(self.time);
        (grown(self.beta1), grown(self.beta2))
    }

    /// One step: the new parameter and its new moments (both zero before the first step).
    ///
    /// # Panics
    /// Where the shapes differ.
    pub fn step<const D: usize>(
        self,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        first: Tensor<D>,
        second: Tensor<D>,
    ) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        let dims = parameter.dims();
        assert_eq!(dims, gradient.dims(), "parameter and gradient");
        assert_eq!((first.dims(), second.dims()), (dims, dims), "the moments");
        if !has_kernel(&parameter) {
            return self.step_reference(parameter, gradient, first, second);
        }
        let (parameter, first, second) = <Dispatch as AdamWOps>::calm_adamw(
            parameter.into_dispatch(),
            gradient.into_dispatch(),
            first.into_dispatch(),
            second.into_dispatch(),
            self,
        );
        (
            Tensor::from_dispatch(parameter),
            Tensor::from_dispatch(first),
            Tensor::from_dispatch(second),
        )
    }

    /// [`AdamW::step`] in plain tensor operations.
    pub fn step_reference<const D: usize>(
        self,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        first: Tensor<D>,
        second: Tensor<D>,
    ) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        let first = first * self.beta1 + gradient.clone() * (1.0 - self.beta1);
        let second = second * self.beta2 + gradient.square() * (1.0 - self.beta2);
        let (grown1, grown2) = self.corrections();
        let root = (second.clone() / grown2).sqrt() + self.epsilon;
        let delta = first.clone() / grown1 / root;
        let parameter = parameter * (1.0 - self.lr * self.weight_decay) - delta * self.lr;
        (parameter, first, second)
    }
}

/// The sum of the squares of all entries, `[1]`.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    if !has_kernel(&x) {
        return x.square().sum();
    }
    Tensor::from_dispatch(<Dispatch as AdamWOps>::calm_sum_of_squares(
        x.into_dispatch(),
    ))
}
