//! Linear layers against the plain version.

use burn::tensor::{DType, Tensor};
use calm_kernels::{linear, reference};

use crate::{compare, numbers};

const SHAPES: [[usize; 4]; 5] = [
    [1, 1, 1, 1],
    [1, 3, 5, 7],
    [2, 17, 33, 65],
    [3, 100, 128, 96],
    [1, 700, 300, 40],
];

#[test]
fn with_bias() {
    for [batch, rows, d, out] in SHAPES {
        compare!(
            [batch, rows, d, out],
            [x: 3 = numbers([batch, rows, d], 1), w: 2 = numbers([d, out], 2), b: 1 = numbers([out], 3)],
            |x, w, b| linear(x, w, Some(b)),
            |x, w, b| reference::linear(x, w, Some(b))
        );
    }
}

#[test]
fn without_bias() {
    for [batch, rows, d, out] in SHAPES {
        compare!(
            [batch, rows, d, out],
            [x: 2 = numbers([batch * rows, d], 1), w: 2 = numbers([d, out], 2)],
            |x, w| linear(x, w, None),
            |x, w| reference::linear(x, w, None)
        );
    }
}

/// A view of a larger tensor, and a weight that is transposed.
#[test]
fn views_are_read_as_they_are() {
    compare!(
        "views",
        [x: 2 = numbers([9, 20], 1), w: 2 = numbers([7, 12], 2)],
        |x: Tensor<2>, w: Tensor<2>| linear(x.narrow(1, 3, 12), w.transpose(), None),
        |x: Tensor<2>, w: Tensor<2>| reference::linear(x.narrow(1, 3, 12), w.transpose(), None)
    );
}

/// A frozen weight gets no gradient, and the input still does.
#[test]
fn a_frozen_weight_does_not_cut_the_graph() {
    let device = crate::device().autodiff();
    let x = crate::leaf::<2>(&numbers([4, 5], 1));
    let w = Tensor::<2>::from_data(numbers([5, 6], 2), &device);
    let grads = linear(x.clone(), w.clone(), None).sum().backward();
    let expected = w.sum_dim(1).transpose().expand([4, 5]).into_data();
    crate::assert_close("x", x.grad(&grads).unwrap().into_data(), expected);
}

/// The plain version in bf16, which GPUs run: a rounding is within 2^-9, so two factors, their
/// product and the sums of an executor that keeps f32 in between stay within 2^-7 of the sum of
/// magnitudes. Tensors and gradients are f32 again.
#[test]
fn the_plain_version_in_bf16_is_within_its_rounding() {
    // Many in a batch, over which the weight's gradient is summed.
    let [batch, rows, d, out] = [300, 5, 130, 33];
    let (x, w, b) = (
        crate::leaf::<3>(&numbers([batch, rows, d], 1)),
        crate::leaf::<2>(&numbers([d, out], 2)),
        crate::leaf::<1>(&numbers([out], 3)),
    );
    let near = |what: &str, rounded: Tensor<2>, exact: Tensor<2>, size: Tensor<2>| {
        assert_eq!(rounded.dtype(), DType::F32, "{what}");
        let off = (rounded.clone() - exact.clone()).abs() / (size + 1e-3);
        let worst = f64::from(off.max().into_scalar::<f32>());
        assert!(worst < 1.0 / 128.0, "{what}: {worst}");
        let moved = f64::from((rounded - exact).abs().max().into_scalar::<f32>());
        assert!(moved > 1e-5, "{what}: nothing was rounded");
    };
    let rounded = reference::linear_bf16(x.clone(), w.clone(), Some(b.clone()));
    let exact = reference::linear(x.clone(), w.clone(), Some(b.clone()));
    let [grads, exact_grads] =
        [rounded.clone(), exact.clone()].map(|y| y.powf_scalar(2.0).sum().backward());
    let size = reference::linear(x.clone().abs(), w.clone().abs(), Some(b.clone().abs()));
    let flat = |y: Tensor<3>| y.inner().flatten::<2>(0, 1);
    let upstream = flat(exact.clone()).abs() * 2.0;
    near("output", flat(rounded), flat(exact), flat(size));
    let (x_size, w_size) = (flat(x.clone().abs()), w.clone().inner().abs());
    let dx = upstream.clone().matmul(w_size.transpose());
    let dw = x_size.transpose().matmul(upstream);
    let [rounded, exact] = [&grads, &exact_grads].map(|of| x.grad(of).unwrap().flatten(0, 1));
    near("gradient of x", rounded, exact, dx * 2.0);
    let [rounded, exact] = [&grads, &exact_grads].map(|of| w.grad(of).unwrap());
    near("gradient of w", rounded, exact, dw * 2.0);
}
