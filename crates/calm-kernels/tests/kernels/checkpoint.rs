//! A checkpointed part of a model, made of kernels, against the same part kept whole.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, Tolerance};
use calm_kernels::{
    can_checkpoint, checkpoint, linear, rms_norm, silu_gate, with_gradient_checkpointing,
};

use crate::{device, leaf, numbers};

#[derive(Module, Debug)]
struct Part {
    norm: Param<Tensor<1>>,
    gate: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
    frozen: Param<Tensor<2>>,
}

impl Part {
    fn forward(&self, [x, y]: [Tensor<2>; 2]) -> Tensor<2> {
        let normed = rms_norm(x.clone(), self.norm.val(), 1e-6);
        let gate = linear(normed.clone(), self.gate.val(), None);
        let gated = silu_gate(gate, linear(normed * y, self.up.val(), None));
        x + linear(gated, self.frozen.val(), None)
    }
}

#[test]
fn values_and_gradients_are_those_of_the_whole_part() {
    let autodiff = device().autodiff();
    assert!(can_checkpoint(&autodiff));
    let weight = |seed| Param::from_tensor(Tensor::from_data(numbers([12, 12], seed), &autodiff));
    let part = Part {
        norm: Param::from_tensor(Tensor::from_data(numbers([12], 1), &autodiff)),
        gate: weight(2),
        up: weight(3),
        frozen: weight(4).no_grad(),
    };
    let data = [numbers([9, 12], 5), numbers([9, 12], 6)];
    let computed = |on| {
        let inputs = data.each_ref().map(leaf::<2>);
        let twice = with_gradient_checkpointing(on, || {
            let run = |inputs| checkpoint(&part, inputs, Part::forward);
            // Parameters and an input that two parts share.
            run([run(inputs.clone()), inputs[1].clone()])
        });
        let value = twice.to_data();
        let gradients = twice.square().sum().backward();
        assert!(part.frozen.val().grad(&gradients).is_none(), "it is frozen");
        let [x, y] = inputs.map(|input| input.grad(&gradients).unwrap().into_data());
        let [gate, up] = [&part.gate, &part.up].map(|w| w.val().grad(&gradients).unwrap());
        let norm = part.norm.val().grad(&gradients).unwrap();
        [
            value,
            x,
            y,
            gate.into_data(),
            up.into_data(),
            norm.into_data(),
        ]
    };
    for (found, expected) in computed(true).iter().zip(&computed(false)) {
        found.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-4));
    }
}
