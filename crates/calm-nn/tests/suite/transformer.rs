//! The transformer with and without a graph, and its gradients.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use calm_fixtures::{gradient_sizes, values};
use calm_nn::{Cost, Init, Transformer, TransformerConfig};

use crate::{input, lively, small};

#[test]
fn values_do_not_depend_on_autodiff() {
    let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
    let hidden = |device: &Device| {
        let model = lively(&small(4, 2), device);
        values(model.forward(input(2, 7, 3, device)))
    };
    for (a, b) in hidden(&plain).iter().zip(hidden(&tracked)) {
        approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-5);
    }
}

#[test]
fn the_same_seed_makes_the_same_transformer_and_another_seed_another() {
    let device = Device::flex();
    let hidden = |seed| {
        let model = small(4, 2).init(&mut Init::new(seed, &device));
        values(model.forward(input(1, 4, 3, &device)))
    };
    assert_eq!(hidden(1), hidden(1));
    assert_ne!(hidden(1), hidden(2));
}

#[test]
fn counted_parameters_are_those_of_the_module() {
    for (heads, kv_heads) in [(1, 1), (2, 1), (4, 2), (8, 8)] {
        let config = small(heads, kv_heads);
        let model = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!(config.parameters(), model.num_params() as u64, "{config:?}");
    }
}

/// With `zero_init_residual` nothing but the final norm is left at the start; the weights that are
/// zero have gradients, so they don't stay so.
#[test]
fn branches_that_begin_at_zero_leave_the_input_and_learn() {
    let device = Device::flex().autodiff();
    let init = &mut Init::new(7, &device).with_zero_residual(true);
    let model = small(4, 2).init(init);
    let x = input(2, 5, 3, &device);
    let normed = calm_nn::rms_norm(&model.norm, x.clone());
    assert_eq!(values(model.forward(x)), values(normed));
    let gradients = objective(&model, &device).sum().backward();
    for block in &model.layers {
        for end in [&block.attention.o, &block.mlp.down] {
            let gradient = end.weight.val().grad(&gradients).unwrap();
            assert!(gradient.abs().max().into_scalar::<f32>() > 0.0);
        }
    }
}

/// A sum with fixed random weights: the plain sum of squares is nearly constant after a norm.
fn objective(model: &Transformer, device: &Device) -> Tensor<3> {
    model.forward(input(2, 5, 3, device)) * input(2, 5, 4, device)
}

type Entry = (
    &'static str,
    fn(&mut Transformer) -> &mut Param<Tensor<2>>,
    [usize; 2],
);

const ENTRIES: [Entry; 9] = [
    ("q", |m| &mut m.layers[0].attention.q.weight, [3, 5]),
    ("k", |m| &mut m.layers[0].attention.k.weight, [15, 2]),
    ("k", |m| &mut m.layers[1].attention.k.weight, [0, 7]),
    ("v", |m| &mut m.layers[0].attention.v.weight, [8, 1]),
    ("v", |m| &mut m.layers[1].attention.v.weight, [4, 6]),
    ("o", |m| &mut m.layers[1].attention.o.weight, [9, 9]),
    ("gate", |m| &mut m.layers[0].mlp.gate.weight, [2, 19]),
    ("up", |m| &mut m.layers[1].mlp.up.weight, [11, 0]),
    ("down", |m| &mut m.layers[0].mlp.down.weight, [17, 12]),
];

/// Fourth-order central differences of the f32 forward pass, summed in f64. At a step of 0.02 the
/// truncation and the rounding (1e-6 / 0.02 per value) both stay well below the 1 % asked for.
#[test]
fn gradients_are_those_of_finite_differences() {
    let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
    let config = small(2, 1);
    let mut model = lively(&config, &tracked);
    let gradients = objective(&model, &tracked).sum().backward();
    for (name, param, [row, column]) in ENTRIES {
        let gradient = param(&mut model)
            .val()
            .grad(&gradients)
            .expect("a gradient");
        let columns = gradient.dims()[1];
        let analytic = values(gradient)[row * columns + column];
        let at = |step: f32| {
            let mut moved = lively(&config, &plain);
            let weight = param(&mut moved);
            let shape = weight.val().dims();
            let mut entries: Vec<f32> = values(weight.val()).iter().map(|&x| x as f32).collect();
            entries[row * columns + column] += step;
            *weight =
                Param::from_tensor(Tensor::from_data(TensorData::new(entries, shape), &plain));
            values(objective(&moved, &plain)).iter().sum::<f64>()
        };
        let h = 0.02;
        let numeric =
            (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
        let off = (analytic - numeric).abs();
        assert!(
            analytic.abs() > 1e-2,
            "{name}: an entry of {analytic} shows nothing"
        );
        assert!(
            off < 1e-2 * analytic.abs().max(0.1),
            "{name}: {analytic} is not {numeric}"
        );
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let model = lively(&small(4, 2), &device);
    let gradients = objective(&model, &device).sum().backward();
    let sizes = gradient_sizes(&model, &gradients);
    assert_eq!(sizes.len(), 2 * 9 + 1);
    for (path, size) in sizes {
        assert!(
            size.is_some_and(|g| g > 0.0 && g.is_finite()),
            "{path}: {size:?}"
        );
    }
}

#[test]
fn a_configuration_survives_json_and_unknown_keys_do_not() {
    let text = serde_json::to_string(&small(4, 2)).unwrap();
    assert_eq!(
        serde_json::from_str::<TransformerConfig>(&text).unwrap(),
        small(4, 2)
    );
    let unknown = text.replacen('{', "{\"head_dim\":4,", 1);
    let error = serde_json::from_str::<TransformerConfig>(&unknown).unwrap_err();
    assert!(error.to_string().contains("head_dim"), "{error}");
}
