//! The norms under autodiff.

use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, tensor::FloatTensor};

use super::NormOps;
use crate::autodiff::{first_order, record};

impl<B: Backend + NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn calm_rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let inputs = [x.node(), w.node()];
        let [x, w] = [x, w].map(|x| x.into_primitive());
        record::<B, C, _, 2>(
            inputs,
            |keep| {
                let saved = keep.then(|| (x.clone(), w.clone(), eps));
                (B::calm_rms_norm(x, w, eps), saved)
            },
            |(x, w, eps), grad, _| {
                let (dx, dw) = B::calm_rms_norm_backward(x, w, grad, eps);
                [dx, dw].map(Some)
            },
        )
    }

    fn calm_layer_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let inputs = [x.node(), w.node(), b.node()];
        let [x, w, b] = [x, w, b].map(|x| x.into_primitive());
        record::<B, C, _, 3>(
            inputs,
            |keep| {
                let saved = keep.then(|| (x.clone(), w.clone(), eps));
                (B::calm_layer_norm(x, w, b, eps), saved)
            },
            |(x, w, eps), grad, _| {
                let (dx, dw, db) = B::calm_layer_norm_backward(x, w, grad, eps);
                [dx, dw, db].map(Some)
            },
        )
    }

    first_order! {
        calm_rms_norm_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, f32,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
        calm_layer_norm_backward(
            FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, f32,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }
}
