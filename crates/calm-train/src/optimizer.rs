//! AdamW with decay groups, and clipping by the global norm.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{
    AdamWState, AdaptiveMomentumState, GradientsParams, LearningRate, ModuleOptimizer, Optimizer,
};
use burn::tensor::{Device, Tensor};
use calm_kernels::sum_of_squares;

use crate::config::OptimConfig;

/// AdamW for `module`: matrices and embeddings decay, biases and norm weights never do.
///
/// The groups name parameters by id, so the module must have its weights loaded before.
pub fn adamw<M: Module>(config: &OptimConfig, module: &M) -> ModuleOptimizer {
    let build = |weight_decay: f64| AdamW {
        beta1: config.beta1 as f32,
        beta2: config.beta2 as f32,
        epsilon: config.epsilon as f32,
        weight_decay: weight_decay as f32,
    };
    let matrices = ParamGroup::from_ids(matrix_ids(module));
    ModuleOptimizer::from(build(0.0)).with_group(matrices, build(config.weight_decay), None)
}

/// Burn's AdamW, its state included, with the step of `calm_kernels`.
#[derive(Clone, Debug)]
struct AdamW {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let before = state.map_or_else(
            || AdaptiveMomentumState::new(0, grad.zeros_like(), grad.zeros_like()),
            |state| state.momentum,
        );
        let step = calm_kernels::AdamW {
            lr: lr as f32,
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            time: before.time as i32 + 1,
        };
        let (tensor, first, second) = step.step(tensor, grad, before.moment_1, before.moment_2);
        let after = AdaptiveMomentumState::new(before.time + 1, first, second);
        (tensor, Some(AdamWState::new(after)))
    }

    fn to_device<const D: usize>(mut state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}

/// Parameters of rank 2: linear weights and embedding tables.
fn matrix_ids<M: Module>(module: &M) -> Vec<ParamId> {
    struct Matrices(Vec<ParamId>);
    impl ModuleVisitor for Matrices {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if D == 2 {
                self.0.push(param.id);
            }
        }
    }
    let mut visitor = Matrices(Vec::new());
    module.visit(&mut visitor);
    visitor.0
}

/// Scales the gradients down so that their global norm is at most `limit`, and returns the norm
/// they had. (Burn's own clipping is per tensor.)
pub fn clip_by_global_norm<M: Module>(module: &M, grads: &mut GradientsParams, limit: f64) -> f64 {
    let norm = norm_of(module, grads);
    let norm = norm.map_or(0.0, |norm| f64::from(norm.into_scalar::<f32>()));
    clip_to(module, grads, norm, limit);
    norm
}

/// The global norm on its device, `[1]`; none of no gradients.
pub(crate) fn norm_of<M: Module>(module: &M, grads: &GradientsParams) -> Option<Tensor<1>> {
    let mut squares = SquaredNorms {
        grads,
        parts: Vec::new(),
    };
    module.visit(&mut squares);
    // One number for the whole model.
    let parts = squares.parts;
    (!parts.is_empty()).then(|| Tensor::cat(parts, 0).sum().sqrt())
}

/// Scales gradients of global norm `norm` down to `limit`.
pub(crate) fn clip_to<M: Module>(module: &M, grads: &mut GradientsParams, norm: f64, limit: f64) {
    if norm > limit {
        let factor = limit / norm;
        module.visit(&mut Scale { grads, factor });
    }
}

struct SquaredNorms<'a> {
    grads: &'a GradientsParams,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.parts.push(sum_of_squares(grad));
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Linear;
    use calm_nn::Init;

    fn config() -> OptimConfig {
        OptimConfig {
            lr: 0.1,
            autoencoder_lr: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.5,
            clip_norm: 1.0,
        }
    }

    fn layer() -> Linear {
        let device = Device::flex().autodiff();
        let mut layer = Init::new(1, &device).linear(2, 2);
        layer.weight = Param::from_tensor(Tensor::from_floats([[1.0, 2.0], [3.0, 4.0]], &device));
        layer.bias = Some(Param::from_tensor(Tensor::from_floats([5.0, 6.0], &device)));
        layer
    }

    fn floats<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// A gradient of zero leaves Adam's own step at zero: what moves is decay alone.
    #[test]
    fn decay_reaches_matrices_and_spares_biases() {
        let layer = layer();
        let mut optimizer = adamw(&config(), &layer);
        let mut grads = GradientsParams::new();
        let device = Device::flex();
        grads.register(layer.weight.id, Tensor::<2>::zeros([2, 2], &device));
        grads.register(
            layer.bias.as_ref().unwrap().id,
            Tensor::<1>::zeros([2], &device),
        );
        let layer = optimizer.step(0.1, layer, grads);
        let weight = floats(layer.weight.val());
        for (got, expected) in weight.iter().zip([0.95, 1.9, 2.85, 3.8]) {
            assert!((got - expected).abs() < 1e-6, "{weight:?}");
        }
        assert_eq!(floats(layer.bias.unwrap().val()), [5.0, 6.0]);
    }

    /// The first step of Adam is lr * sign(gradient), whatever its size.
    #[test]
    fn the_first_step_is_the_sign_of_the_gradient() {
        let layer = layer();
        let mut optimizer = adamw(
            &OptimConfig {
                weight_decay: 0.0,
                ..config()
            },
            &layer,
        );
        let mut grads = GradientsParams::new();
        let gradient = Tensor::<2>::from_floats([[1e-3, -7.0], [0.2, -1e-2]], &Device::flex());
        grads.register(layer.weight.id, gradient);
        let weight = floats(optimizer.step(0.1, layer, grads).weight.val());
        for (got, expected) in weight.iter().zip([0.9, 2.1, 2.9, 4.1]) {
            assert!((got - expected).abs() < 1e-4, "{weight:?}");
        }
    }

    #[test]
    fn clipping_is_by_the_norm_over_all_tensors() {
        let layer = layer();
        let device = Device::flex();
        let mut grads = GradientsParams::new();
        let bias = layer.bias.as_ref().unwrap().id;
        grads.register(
            layer.weight.id,
            Tensor::<2>::from_floats([[2.0, 0.0], [0.0, 1.0]], &device),
        );
        grads.register(bias, Tensor::<1>::from_floats([2.0, 0.0], &device));
        assert_eq!(clip_by_global_norm(&layer, &mut grads, 10.0), 3.0);
        assert_eq!(
            floats(grads.get::<1>(bias).unwrap()),
            [2.0, 0.0],
            "below the limit: untouched"
        );
        assert_eq!(clip_by_global_norm(&layer, &mut grads, 1.5), 3.0);
        assert_eq!(floats(grads.get::<1>(bias).unwrap()), [1.0, 0.0]);
        assert_eq!(
            floats(grads.get::<2>(layer.weight.id).unwrap()),
            [1.0, 0.0, 0.0, 0.5]
        );
    }
}
