//! Cross-entropy over a vocabulary.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Mean cross-entropy in nats.
///
/// # Shapes
/// - logits: `[rows, V]`
/// - targets: `[rows]`
/// - output: `[1]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    if logits.is_autodiff() {
        return fused(logits, targets);
    }
    log_softmax(logits, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .mean()
        .neg()
}

/// The same value with the gradient written out, `(softmax - onehot) / rows`.
///
/// The chain rule through log-softmax keeps several `[rows, V]` tensors alive and passes over
/// each; here one is made, outside the graph, and multiplied in. The value of the returned scalar
/// is the loss, its gradient that of `sum(logits * gradient)`.
fn fused(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let targets = targets.without_autodiff().unsqueeze_dim::<2>(1);
    let log_p = log_softmax(logits.clone().without_autodiff(), 1);
    let value = log_p.clone().gather(1, targets.clone()).mean().neg();
    let minus_one = Tensor::full([rows, 1], -1.0, &value.device());
    let gradient = log_p
        .exp()
        .scatter(1, targets, minus_one, burn::tensor::IndexingUpdateOp::Add)
        .div_scalar(rows as f64);
    let carrier = (logits * Tensor::from_inner(gradient)).sum();
    let offset = value - carrier.clone().without_autodiff();
    carrier + Tensor::from_inner(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    #[test]
    fn value_and_gradient_equal_the_chain_rule() {
        let device = Device::flex().autodiff();
        let data = TensorData::new(crate::RandomStream::new(1).normal(5 * 7), [5, 7]);
        let logits = || Tensor::<2>::from_data(data.clone(), &device).require_grad();
        let targets = Tensor::<1, Int>::from_ints([0, 6, 3, 3, 1], &device);
        let (a, b) = (logits(), logits());
        let fast = cross_entropy(a.clone(), targets.clone());
        let slow = log_softmax(b.clone(), 1)
            .gather(1, targets.unsqueeze_dim(1))
            .mean()
            .neg();
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
