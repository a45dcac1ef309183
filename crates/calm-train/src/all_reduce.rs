//! Gradients of several devices, summed by all of them at once.
//!
//! Burn 0.22.1 has the operation among CUDA devices of one process. It was type-checked and never run: it
//! takes two such devices.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::distributed::{ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

/// Sums tensors, each on its device.
pub(crate) trait AllReduce {
    /// `parts`, all of one shape, are on the devices in their order; the sum is on the first.
    fn sum<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D>;
}

/// Burn's own, by NCCL.
pub(crate) struct Collective {
    /// Without autodiff.
    pub devices: Vec<Device>,
}

impl AllReduce for Collective {
    fn sum<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D> {
        // All are under way before one is waited for: each waits for the others.
        let under_way: Vec<_> = parts
            .into_iter()
            .map(|part| all_reduce(part, ReduceOperation::Sum, self.devices.clone()))
            .collect();
        let sums: Vec<_> = under_way.into_iter().map(|sum| sum.resolve()).collect();
        sums.into_iter().next().expect("one device at least")
    }
}

/// The sum of the devices' gradients, on the first device.
pub(crate) fn sum<M: Module>(
    model: &M,
    of_devices: Vec<GradientsParams>,
    by: &impl AllReduce,
) -> GradientsParams {
    let mut summed = Summed {
        of_devices,
        sum: GradientsParams::new(),
        by,
    };
    model.visit(&mut summed);
    summed.sum
}

struct Summed<'a, R> {
    of_devices: Vec<GradientsParams>,
    sum: GradientsParams,
    by: &'a R,
}

impl<R: AllReduce> ModuleVisitor for Summed<'_, R> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parts = self
            .of_devices
            .iter_mut()
            .map(|of| of.remove::<D>(param.id));
        // Parameters without gradients have them on no device.
        if let Some(parts) = parts.collect() {
            self.sum.register(param.id, self.by.sum::<D>(parts));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsAccumulator;

    use super::*;

    /// In this process, one after the other.
    struct Plain;

    impl AllReduce for Plain {
        fn sum<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D> {
            let sum = parts.into_iter().reduce(|a, b| a + b);
            sum.expect("one device at least")
        }
    }

    #[test]
    fn every_parameter_has_the_sum_of_its_gradients() {
        let device = Device::flex().autodiff();
        // The second has no gradient.
        let model: (Linear, Linear) = (
            LinearConfig::new(3, 2).init(&device),
            LinearConfig::new(2, 2).init(&device),
        );
        let gradients = |scale: f32| {
            let input = Tensor::<2>::from_floats([[scale, 1.0, -scale]], &device);
            let loss = model.0.forward(input).powf_scalar(2.0).sum();
            GradientsParams::from_grads(loss.backward(), &model)
        };
        let found = sum(
            &model,
            (1..4).map(|i| gradients(i as f32)).collect(),
            &Plain,
        );
        let mut accumulator = GradientsAccumulator::new();
        for i in 1..4 {
            accumulator.accumulate(&model, gradients(i as f32));
        }
        let expected = accumulator.grads();
        assert_eq!(found.len(), 2);
        let (weight, bias) = (model.0.weight.id, model.0.bias.as_ref().unwrap().id);
        let same = |a: burn::tensor::TensorData, b| a.assert_eq(&b, true);
        let weights = [&found, &expected].map(|g| g.get::<2>(weight).unwrap().into_data());
        let [a, b] = weights;
        same(a, b);
        let [a, b] = [&found, &expected].map(|g| g.get::<1>(bias).unwrap().into_data());
        same(a, b);
    }
}
