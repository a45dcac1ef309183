//! Operations that bring their own backward pass, under Burn's autodiff.

use std::fmt;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::{Backend, tensor::FloatTensor};

/// The gradients of N inputs from what was saved and the gradient of the output; the flags say which
/// inputs want one, and what the others get is dropped.
type Gradient<B, S, const N: usize> =
    fn(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N];

struct Operation<B: Backend, S, const N: usize>(Gradient<B, S, N>);

impl<B: Backend, S, const N: usize> fmt::Debug for Operation<B, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an operation of {N} inputs")
    }
}

impl<B: Backend, S, const N: usize> Backward<B, N> for Operation<B, S, N>
where
    S: Clone + Send + fmt::Debug + 'static,
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let grad = grads.consume::<B>(&ops.node);
        let found = (self.0)(ops.state, grad, wanted);
        for (node, grad) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// Runs `forward`, which gives the output and, where its argument says that a gradient is wanted,
/// what `backward` needs for it.
pub(crate) fn record<B: Backend, C: CheckpointStrategy, S, const N: usize>(
    inputs: [NodeGuard; N],
    forward: impl FnOnce(bool) -> (FloatTensor<B>, Option<S>),
    backward: Gradient<B, S, N>,
) -> FloatTensor<burn::backend::autodiff::Autodiff<B, C>>
where
    S: Clone + Send + fmt::Debug + 'static,
{
    let operation = Operation(backward);
    match operation.prepare::<C>(inputs).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, saved) = forward(true);
            prep.finish(saved.expect("what the backward pass needs"), output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(false).0),
    }
}

/// The backward passes of a trait of operations, which have none of their own.
macro_rules! first_order {
    ($($name:ident($($arg:ty),* $(,)?) -> $out:ty;)*) => {
        $(
            #[allow(clippy::too_many_arguments)]
            fn $name($(_: $arg),*) -> $out {
                panic!("the kernels have first derivatives only")
            }
        )*
    };
}
pub(crate) use first_order;
