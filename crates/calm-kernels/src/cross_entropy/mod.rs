//! Cross-entropy over a vocabulary, together with the projection onto it.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;

use burn::backend::{
    Backend, Dispatch, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor, activation::log_softmax};

use crate::has_kernel;
use crate::weights::wide;

/// Backends with a fused cross-entropy.
#[backend_extension(
    Flex,
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff
)]
pub trait CrossEntropyOps: Backend {
    /// Mean cross-entropy `[1]` of the scores `x w`; with `transposed`, w is `[V, d]`.
    #[fusion(dtype = x, shape = burn::tensor::Shape::from([1]))]
    fn calm_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;

    /// The same, and the gradients of x and w.
    #[fusion(meta = |x, w, _, _| {
        let loss = burn::backend::fusion::custom::TensorSpec::new([1].into(), x.dtype);
        (loss, x.clone(), w.clone())
    })]
    fn calm_cross_entropy_with_grads(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: IntTensor<Self>,
        transposed: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The matrix of a projection onto a vocabulary. What is kept in fewer bits than f32 is widened whole.
#[derive(Clone, Debug)]
pub enum Projection {
    /// `[d, V]`, an output layer.
    Output(Tensor<2>),
    /// `[V, d]`, a tied embedding table.
    Embedding(Tensor<2>),
}

/// Mean cross-entropy in nats of the scores that `projection` gives to the rows of `x`.
///
/// The scores of all rows never stand in memory at once: they are made block by block, and with
/// them, where gradients are wanted, the gradients of both factors.
///
/// # Shapes
/// - x: `[rows, d]`
/// - targets: `[rows]`
/// - output: `[1]`
pub fn cross_entropy(x: Tensor<2>, projection: Projection, targets: Tensor<1, Int>) -> Tensor<1> {
    assert_eq!(x.dims()[0], targets.dims()[0], "one target per row");
    let projection = projection.wide();
    if !has_kernel(&x) {
        return written_out(projection.scores(x), targets);
    }
    let (w, transposed) = match projection {
        Projection::Output(w) => (w, false),
        Projection::Embedding(w) => (w, true),
    };
    let loss = <Dispatch as CrossEntropyOps>::calm_cross_entropy(
        x.into_dispatch(),
        w.into_dispatch(),
        targets.into_dispatch(),
        transposed,
    );
    Tensor::from_dispatch(loss)
}

impl Projection {
    fn wide(self) -> Self {
        match self {
            Self::Output(w) => Self::Output(wide(w)),
            Self::Embedding(w) => Self::Embedding(wide(w)),
        }
    }

    fn scores(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Output(w) => x.matmul(w),
            Self::Embedding(w) => x.matmul(w.transpose()),
        }
    }
}

/// [`cross_entropy`] in plain tensor operations; makes all scores.
pub fn cross_entropy_reference(
    x: Tensor<2>,
    projection: Projection,
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    plain(projection.wide().scores(x), targets)
}

fn plain(scores: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    log_softmax(scores, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .mean()
        .neg()
}

/// The same with the gradient of the scores written out, `(softmax - onehot) / rows`, for backends
/// without a kernel.
///
/// The chain rule through log-softmax keeps several `[rows, V]` tensors alive and passes over
/// each; here one is made, outside the graph, and multiplied in. The value of the returned scalar
/// is the loss, its gradient that of `sum(scores * gradient)`.
fn written_out(scores: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    if !scores.is_autodiff() {
        return plain(scores, targets);
    }
    let [rows, _] = scores.dims();
    let targets = targets.without_autodiff().unsqueeze_dim::<2>(1);
    let log_p = log_softmax(scores.clone().without_autodiff(), 1);
    let value = log_p.clone().gather(1, targets.clone()).mean().neg();
    let minus_one = Tensor::full([rows, 1], -1.0, &value.device());
    let gradient = log_p
        .exp()
        .scatter(1, targets, minus_one, burn::tensor::IndexingUpdateOp::Add)
        .div_scalar(rows as f64);
    let carrier = (scores * Tensor::from_inner(gradient)).sum();
    let offset = value - carrier.clone().without_autodiff();
    carrier + Tensor::from_inner(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    #[test]
    fn the_written_gradient_equals_the_chain_rule() {
        let device = Device::flex().autodiff();
        let data = TensorData::new(crate::normals(1, 5 * 7), [5, 7]);
        let scores = || Tensor::<2>::from_data(data.clone(), &device).require_grad();
        let targets = Tensor::<1, Int>::from_ints([0, 6, 3, 3, 1], &device);
        let (a, b) = (scores(), scores());
        let fast = written_out(a.clone(), targets.clone());
        let slow = plain(b.clone(), targets);
        let close = |x: TensorData, y: TensorData| {
            x.assert_approx_eq::<f32>(&y, Tolerance::absolute(1e-6));
        };
        close(fast.to_data(), slow.to_data());
        let (ga, gb) = (fast.backward(), slow.backward());
        close(
            a.grad(&ga).unwrap().into_data(),
            b.grad(&gb).unwrap().into_data(),
        );
    }
}
