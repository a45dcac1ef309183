//! The norms on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{NormOps, cpu};
use crate::cpu::tensor::{Floats, filled, tensor};

impl NormOps for Flex {
    fn calm_rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let (x, w) = (Floats::new(x), Floats::new(w));
        let out = filled(x.len(), |out| cpu::rms_norm(&x, &w, eps, out));
        tensor(out, x.shape().clone())
    }

    fn calm_rms_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (x, w, grad) = (Floats::new(x), Floats::new(w), Floats::new(grad));
        let mut dw = Vec::new();
        let dx = filled(x.len(), |dx| {
            dw = cpu::rms_norm_backward(&x, &w, &grad, eps, dx);
        });
        (tensor(dx, x.shape().clone()), tensor(dw, [w.len()]))
    }

    fn calm_layer_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let (x, w, b) = (Floats::new(x), Floats::new(w), Floats::new(b));
        let out = filled(x.len(), |out| cpu::layer_norm(&x, &w, &b, eps, out));
        tensor(out, x.shape().clone())
    }

    fn calm_layer_norm_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, w, grad) = (Floats::new(x), Floats::new(w), Floats::new(grad));
        let mut sums = Vec::new();
        let dx = filled(x.len(), |dx| {
            sums = cpu::layer_norm_backward(&x, &w, &grad, eps, dx);
        });
        let db = sums.split_off(w.len());
        let d = [w.len()];
        (
            tensor(dx, x.shape().clone()),
            tensor(sums, d),
            tensor(db, d),
        )
    }
}
