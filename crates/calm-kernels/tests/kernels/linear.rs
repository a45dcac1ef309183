//! Linear layers against the plain version.

use burn::tensor::Tensor;
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
