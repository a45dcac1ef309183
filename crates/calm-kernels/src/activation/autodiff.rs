//! Activations under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, tensor::FloatTensor};

use super::ActivationOps;
use crate::autodiff::{first_order, record};

/// An operation of one input, whose backward pass reads the input.
macro_rules! of_one {
    ($($name:ident, $backward:ident;)*) => {
        $(fn $name(x: FloatTensor<Self>) -> FloatTensor<Self> {
            let inputs = [x.node()];
            let x = x.into_primitive();
            record::<B, C, _, 1>(
                inputs,
                |keep| {
                    let saved = keep.then(|| x.clone());
                    (B::$name(x), saved)
                },
                |x, grad, _| [Some(B::$backward(x, grad))],
            )
        })*
    };
}

/// The same of two inputs.
macro_rules! of_two {
    ($($name:ident, $backward:ident;)*) => {
        $(fn $name(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
            let inputs = [a.node(), b.node()];
            let [a, b] = [a, b].map(|x| x.into_primitive());
            record::<B, C, _, 2>(
                inputs,
                |keep| {
                    let saved = keep.then(|| [a.clone(), b.clone()]);
                    (B::$name(a, b), saved)
                },
                |[a, b], grad, _| {
                    let (da, db) = B::$backward(a, b, grad);
                    [da, db].map(Some)
                },
            )
        })*
    };
}

impl<B: Backend + ActivationOps, C: CheckpointStrategy> ActivationOps for Autodiff<B, C> {
    of_one! {
        calm_silu, calm_silu_backward;
        calm_silu_gate_packed, calm_silu_gate_packed_backward;
    }

    of_two! {
        calm_silu_add, calm_silu_add_backward;
        calm_silu_gate, calm_silu_gate_backward;
    }

    first_order! {
        calm_silu_backward(FloatTensor<Self>, FloatTensor<Self>) -> FloatTensor<Self>;
        calm_silu_gate_packed_backward(FloatTensor<Self>, FloatTensor<Self>) -> FloatTensor<Self>;
        calm_silu_add_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
        calm_silu_gate_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }
}
