//! Activations on the CPU executor.

use burn::backend::{Flex, tensor::FloatTensor};

use super::{ActivationOps, cpu};
use crate::cpu::tensor::{Floats, filled, tensor};

impl ActivationOps for Flex {
    fn calm_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = Floats::new(x);
        tensor(filled(x.len(), |out| cpu::silu(&x, out)), x.shape().clone())
    }

    fn calm_silu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, grad) = (Floats::new(x), Floats::new(grad));
        let dx = filled(x.len(), |dx| cpu::silu_backward(&x, &grad, dx));
        tensor(dx, x.shape().clone())
    }

    fn calm_silu_add(x: FloatTensor<Self>, shared: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, shared) = (Floats::new(x), Floats::new(shared));
        let out = filled(x.len(), |out| cpu::silu_add(&x, &shared, x.width(), out));
        tensor(out, x.shape().clone())
    }

    fn calm_silu_add_backward(
        x: FloatTensor<Self>,
        shared: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (x, shared, grad) = (Floats::new(x), Floats::new(shared), Floats::new(grad));
        let dx = filled(x.len(), |dx| {
            cpu::silu_add_backward(&x, &shared, &grad, x.width(), dx);
        });
        let dshared = filled(shared.len(), |out| cpu::sum_first(&dx, out));
        (
            tensor(dx, x.shape().clone()),
            tensor(dshared, shared.shape().clone()),
        )
    }

    fn calm_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = (Floats::new(gate), Floats::new(up));
        let out = filled(gate.len(), |out| cpu::gate(&gate, &up, out));
        tensor(out, gate.shape().clone())
    }

    fn calm_silu_gate_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up, grad) = (Floats::new(gate), Floats::new(up), Floats::new(grad));
        let mut dup = vec![0.0; up.len()];
        let dgate = filled(gate.len(), |dgate| {
            cpu::gate_backward(&gate, &up, &grad, dgate, &mut dup);
        });
        let shape = gate.shape();
        (tensor(dgate, shape.clone()), tensor(dup, shape.clone()))
    }

    fn calm_silu_gate_packed(both: FloatTensor<Self>) -> FloatTensor<Self> {
        let both = Floats::new(both);
        let mut shape = both.shape().clone();
        let width = both.width() / 2;
        let last = shape.num_dims() - 1;
        shape[last] = width;
        let out = filled(both.len() / 2, |out| cpu::gate_packed(&both, width, out));
        tensor(out, shape)
    }

    fn calm_silu_gate_packed_backward(
        both: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (both, grad) = (Floats::new(both), Floats::new(grad));
        let width = both.width() / 2;
        let dboth = filled(both.len(), |out| {
            cpu::gate_packed_backward(&both, &grad, width, out);
        });
        tensor(dboth, both.shape().clone())
    }
}
