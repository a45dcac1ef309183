//! Cross-entropy against the plain version.

use burn::tensor::{Int, Tensor, TensorData};
use calm_kernels::{Projection, cross_entropy, reference};

use crate::{compare, device, leaf, numbers};

fn targets(rows: usize, vocab: usize, like: &Tensor<2>) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..rows).map(|i| (i * 7 % vocab) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [rows]), &like.device())
}

/// Rows, width, vocabulary; the last needs several blocks.
const SHAPES: [[usize; 3]; 5] = [
    [1, 1, 2],
    [5, 8, 13],
    [100, 16, 33],
    [64, 12, 1],
    [130, 4, 40_000],
];

#[test]
fn with_an_output_layer() {
    for [rows, d, vocab] in SHAPES {
        compare!(
            [rows, d, vocab],
            [x: 2 = numbers([rows, d], 1), w: 2 = numbers([d, vocab], 2)],
            |x: Tensor<2>, w| cross_entropy(x.clone(), Projection::Output(w), targets(rows, vocab, &x)),
            |x: Tensor<2>, w| {
                reference::cross_entropy(x.clone(), Projection::Output(w), targets(rows, vocab, &x))
            }
        );
    }
}

#[test]
fn with_a_tied_table() {
    for [rows, d, vocab] in SHAPES {
        compare!(
            [rows, d, vocab],
            [x: 2 = numbers([rows, d], 1), w: 2 = numbers([vocab, d], 2)],
            |x: Tensor<2>, w| {
                cross_entropy(x.clone(), Projection::Embedding(w), targets(rows, vocab, &x))
            },
            |x: Tensor<2>, w| {
                reference::cross_entropy(x.clone(), Projection::Embedding(w), targets(rows, vocab, &x))
            }
        );
    }
}

/// Scores of a thousand neither overflow nor lose the gradient of the others.
#[test]
fn large_scores() {
    let x = leaf::<2>(&TensorData::from([[1000.0f32, -1000.0, 999.0]]));
    let w = Tensor::<2>::eye(3, &device().autodiff());
    let target = Tensor::<1, Int>::from_ints([2], &x.device());
    let loss = cross_entropy(x.clone(), Projection::Output(w), target);
    let grads = loss.clone().backward();
    let e = 1f32.exp();
    crate::assert_close("loss", loss.into_data(), TensorData::from([(1.0 + e).ln()]));
    let p = e / (1.0 + e);
    let expected = TensorData::from([[p, 0.0, -p]]);
    crate::assert_close("x", x.grad(&grads).unwrap().into_data(), expected);
}

/// The loss of a target that is not in the vocabulary.
fn outside() -> Tensor<1> {
    let x = Tensor::<2>::ones([1, 2], &device());
    let w = Tensor::<2>::ones([2, 3], &device());
    let target = Tensor::<1, Int>::from_ints([3], &device());
    cross_entropy(x, Projection::Output(w), target)
}

#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
#[test]
#[should_panic(expected = "index 3 is outside 0..3")]
fn a_target_outside_the_vocabulary() {
    let _ = outside();
}

/// A kernel on a GPU can't panic.
#[cfg(any(feature = "vulkan", feature = "webgpu"))]
#[test]
fn a_target_outside_the_vocabulary() {
    assert!(outside().into_scalar::<f32>().is_nan());
}
