//! Gradient checkpointing of a part of a model (Chen et al., "Training deep nets with sublinear memory
//! cost", arXiv 1604.06174): the forward pass keeps the part's inputs alone, and the backward pass runs
//! the part again for what its operations need.
//!
//! Burn's own checkpointing (`Device::gradient_checkpointing`) makes single operations again, those that
//! are limited by memory. What a transformer keeps are inputs of matrix products, which it leaves.

use std::cell::Cell;
use std::fmt;

use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Backend, DispatchDevice, DispatchKindConversion, DispatchTensor, Flex, tensor::FloatTensor,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::{MatmulPrecision, linear::matmul_precision, with_matmul_precision};

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with the parts of models that this thread hands to [`checkpoint()`] checkpointed, or not.
pub fn with_gradient_checkpointing<R>(on: bool, work: impl FnOnce() -> R) -> R {
    /// Puts the old value back, after a panic too.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON.set(self.0);
        }
    }
    let _restore = Restore(ON.replace(on));
    work()
}

/// Whether parts of models can be checkpointed on `device`: on the CPU executor, and with feature `cube`
/// on CUDA, ROCm, Vulkan, Metal and WebGPU.
pub fn can_checkpoint(device: &Device) -> bool {
    crate::fused(device)
}

/// `forward(module, inputs)`. Inside [`with_gradient_checkpointing`], where a gradient is wanted of one
/// input at least and [`can_checkpoint`] says so, nothing but the inputs is kept of it for the backward
/// pass, which runs it once more. Values and gradients are the same.
///
/// `forward` must be a function of its arguments and of constants, which must be tensors without
/// autodiff; it must give the same again.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use calm_kernels::{checkpoint, with_gradient_checkpointing};
///
/// let device = Device::flex().autodiff();
/// let layer = LinearConfig::new(3, 3).init(&device);
/// let x = Tensor::<2>::ones([2, 3], &device).require_grad();
/// let gradient = |on| {
///     let y = with_gradient_checkpointing(on, || {
///         checkpoint(&layer, [x.clone()], |layer: &Linear, [x]| layer.forward(x).tanh())
///     });
///     let gradients = y.sum().backward();
///     let of_weight = layer.weight.val().grad(&gradients).unwrap();
///     (x.grad(&gradients).unwrap().into_data(), of_weight.into_data())
/// };
/// assert_eq!(gradient(true), gradient(false));
/// ```
pub fn checkpoint<M, F, const D: usize, const N: usize>(
    module: &M,
    inputs: [Tensor<D>; N],
    forward: F,
) -> Tensor<D>
where
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; N]) -> Tensor<D> + Clone + Send + 'static,
{
    if !ON.get()
        || !inputs
            .iter()
            .any(|input| input.is_autodiff() && input.is_tracked())
    {
        return forward(module, inputs);
    }
    let device = inputs[0].device().without_autodiff();
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => on_backend::<Flex, _, _, D, N>(module, inputs, forward),
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => {
            on_backend::<burn::backend::Cube, _, _, D, N>(module, inputs, forward)
        }
        #[allow(unreachable_patterns)]
        _ => forward(module, inputs),
    }
}

/// What the backward pass runs again.
#[derive(Clone)]
struct Again<M, F, const D: usize, const N: usize> {
    /// Without autodiff.
    module: M,
    inputs: [Tensor<D>; N],
    forward: F,
    /// Of the module's parameters in the order of a visit; none of one that is frozen.
    parameters: Vec<Option<NodeId>>,
    precision: MatmulPrecision,
}

impl<M, F, const D: usize, const N: usize> fmt::Debug for Again<M, F, D, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a part of {} parameters", self.parameters.len())
    }
}

struct Part<M, F, const D: usize>(std::marker::PhantomData<fn() -> (M, F)>);

impl<M, F, const D: usize> fmt::Debug for Part<M, F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a checkpointed part of a model")
    }
}

fn on_backend<B, M, F, const D: usize, const N: usize>(
    module: &M,
    inputs: [Tensor<D>; N],
    forward: F,
) -> Tensor<D>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; N]) -> Tensor<D> + Clone + Send + 'static,
{
    let mut visited = Nodes::<B>(Vec::new(), std::marker::PhantomData);
    module.visit(&mut visited);
    let module = module.clone().valid();
    let nodes = inputs.each_ref().map(|input| {
        let input = match input.is_autodiff() {
            true => input.clone(),
            false => Tensor::from_inner(input.clone()),
        };
        let input = input.try_into_primitive::<Autodiff<B>>();
        input.expect("the inputs are on one device").node()
    });
    let inputs = inputs.map(|input| input.without_autodiff());
    let output = forward(&module, inputs.clone());
    let output = output.try_into_primitive::<B>();
    let output = output.expect("constants of a checkpointed part have no autodiff");
    let part = Part::<M, F, D>(std::marker::PhantomData);
    let prepared = Backward::<B, N>::prepare::<NoCheckpointing>(part, nodes);
    let output = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let again = Again {
                module,
                inputs,
                forward,
                parameters: visited.0,
                precision: matmul_precision(),
            };
            prep.finish(again, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Autodiff<B>>(output)
}

impl<B, M, F, const D: usize, const N: usize> Backward<B, N> for Part<M, F, D>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; N]) -> Tensor<D> + Clone + Send + 'static,
{
    type State = Again<M, F, D, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let again = ops.state;
        let grad = Tensor::<D>::from_primitive::<B>(grads.consume::<B>(&ops.node));
        let module = again.module.train();
        let inputs: [Tensor<D>; N] = std::array::from_fn(|i| {
            let input = Tensor::from_inner(again.inputs[i].clone());
            input.set_require_grad(ops.parents[i].is_some())
        });
        let (forward, leaves) = (again.forward, inputs.clone());
        let mut found = with_gradient_checkpointing(false, || {
            with_matmul_precision(again.precision, || {
                let output = forward(&module, leaves);
                // Its gradient is `grad`.
                (output * Tensor::from_inner(grad)).sum().backward()
            })
        });
        for (node, input) in ops.parents.into_iter().zip(inputs) {
            if let (Some(node), Some(grad)) = (node, input.grad_remove(&mut found)) {
                grads.register::<B>(node.id, primitive::<B, D>(grad));
            }
        }
        // Parameters are leaves, which nothing waits for: they need not be parents, whose number is fixed
        // at compile time.
        module.visit(&mut Register::<B> {
            found: &mut found,
            grads,
            nodes: again.parameters.into_iter(),
            backend: std::marker::PhantomData,
        });
    }
}

fn primitive<B: Backend, const D: usize>(x: Tensor<D>) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let x = x.try_into_primitive::<B>();
    x.expect("a gradient is where its tensor is")
}

/// The nodes of parameters.
struct Nodes<B>(Vec<Option<NodeId>>, std::marker::PhantomData<B>);

impl<B: Backend> ModuleVisitor for Nodes<B>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let node = value.is_require_grad().then(|| {
            let value = value.try_into_primitive::<Autodiff<B>>();
            value.expect("module and inputs are on one device").id()
        });
        self.0.push(node);
    }
}

/// Hands the gradients of parameters on.
struct Register<'a, B> {
    found: &'a mut burn::tensor::Gradients,
    grads: &'a mut Gradients,
    nodes: std::vec::IntoIter<Option<NodeId>>,
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend> ModuleVisitor for Register<'_, B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let node = self.nodes.next().flatten();
        if let (Some(node), Some(grad)) = (node, param.val().grad_remove(self.found)) {
            self.grads.register::<B>(node, primitive::<B, D>(grad));
        }
    }
}
