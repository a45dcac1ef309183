//! The one door through which random tensors enter a model.

use burn::tensor::{Device, Tensor, TensorData};

use crate::RandomStream;

/// A source of random tensors: head noise, posterior noise, dropout masks.
///
/// Nothing in the workspace draws inside a layer; every draw is asked of a `Draws`, in a fixed
/// order, so that any value can be replayed. Shapes are flat: the caller reshapes.
pub trait Draws {
    /// `n` draws from the standard normal distribution, shape `[n]`, on `device`.
    fn normal(&mut self, n: usize, device: &Device) -> Tensor<1>;

    /// `n` draws uniform in `[0, 1)`, shape `[n]`, on `device`.
    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1>;

    /// A key from which a kernel makes standard normal numbers itself (`calm_kernels::normals`
    /// makes the same), where the source has keys; else the numbers must be asked for.
    fn key(&mut self) -> Option<u64> {
        None
    }
}

/// Draws made on the host from a [`RandomStream`]: the same on every device.
#[derive(Clone, Debug)]
pub struct HostDraws {
    stream: RandomStream,
}

impl HostDraws {
    /// The draws of `seed`; use `mix(run_seed, step)` for one step of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            stream: RandomStream::new(seed),
        }
    }
}

impl Draws for HostDraws {
    fn normal(&mut self, n: usize, device: &Device) -> Tensor<1> {
        Tensor::from_data(TensorData::new(self.stream.normal(n), [n]), device)
    }

    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1> {
        Tensor::from_data(TensorData::new(self.stream.uniform(n), [n]), device)
    }

    fn key(&mut self) -> Option<u64> {
        Some(self.stream.key())
    }
}

/// Replays given values in the order in which they are asked for; for tests and audits.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    values: std::collections::VecDeque<Vec<f32>>,
}

impl Replay {
    /// Answers the requests with `values`, one vector a request.
    pub fn new(values: impl IntoIterator<Item = Vec<f32>>) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }

    fn next(&mut self, n: usize, device: &Device) -> Tensor<1> {
        let values = self.values.pop_front().expect("a value left to replay");
        assert_eq!(
            values.len(),
            n,
            "replayed {} values where {n} were asked for",
            values.len()
        );
        Tensor::from_data(TensorData::new(values, [n]), device)
    }
}

impl Draws for Replay {
    fn normal(&mut self, n: usize, device: &Device) -> Tensor<1> {
        self.next(n, device)
    }

    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1> {
        self.next(n, device)
    }
}
