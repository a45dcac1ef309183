//! Cross-entropy against a computation in f64.

use burn::tensor::{Device, Int, Tensor};
use calm_fixtures::values;
use calm_kernels::{Projection, normals};

const ROWS: usize = 6;
const V: usize = 9;
/// The scores themselves: the projection is the identity.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let identity = Tensor::eye(V, &logits.device());
    calm_kernels::cross_entropy(logits, Projection::Output(identity), targets)
}

const TARGETS: [i64; ROWS] = [0, 8, 4, 4, 1, 7];

/// Mean loss, and its gradient `(softmax - onehot) / rows`.
fn expected(logits: &[f32]) -> (f64, Vec<f64>) {
    let (mut loss, mut gradient) = (0.0, Vec::new());
    for (row, target) in logits.chunks(V).zip(TARGETS) {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_z = largest + row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        loss += (log_z - row[target as usize]) / ROWS as f64;
        gradient.extend(
            row.iter()
                .enumerate()
                .map(|(i, x)| ((x - log_z).exp() - f64::from(i as i64 == target)) / ROWS as f64),
        );
    }
    (loss, gradient)
}

fn check(scale: f32, offset: f32, tolerance: f64) {
    let values_in: Vec<f32> = normals(3, ROWS * V)
        .iter()
        .map(|x| x * scale + offset)
        .collect();
    let (loss, gradient) = expected(&values_in);
    for device in [Device::flex(), Device::flex().autodiff()] {
        let logits = Tensor::<1>::from_floats(values_in.as_slice(), &device).reshape([ROWS, V]);
        let logits = if device.is_autodiff() {
            logits.require_grad()
        } else {
            logits
        };
        let targets = Tensor::<1, Int>::from_ints(TARGETS, &device);
        let found = cross_entropy(logits.clone(), targets);
        let value = values(found.clone())[0];
        assert!(
            (value - loss).abs() <= tolerance * loss.max(1.0),
            "{value} is not {loss}"
        );
        if device.is_autodiff() {
            let found = values(logits.grad(&found.backward()).expect("a gradient"));
            for (a, b) in found.iter().zip(&gradient) {
                assert!((a - b).abs() < 1e-6 + tolerance / 10.0, "{a} is not {b}");
            }
        }
    }
}

#[test]
fn value_and_gradient_are_those_of_the_formula() {
    check(1.0, 0.0, 1e-6);
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    check(500.0, 0.0, 1e-5);
}

/// With an offset of 1000 an f32 logit itself is off by 6e-5.
#[test]
fn a_common_offset_cancels() {
    check(1.0, 1000.0, 2e-4);
}

#[test]
fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
    let device = Device::flex();
    let targets = Tensor::<1, Int>::from_ints(TARGETS, &device);
    let loss = cross_entropy(Tensor::zeros([ROWS, V], &device), targets);
    approx::assert_abs_diff_eq!(values(loss)[0], (V as f64).ln(), epsilon = 1e-6);
}
