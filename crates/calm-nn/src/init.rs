//! Weight initialisation from a seed, equal on every device.

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::RandomStream;

/// Epsilon of all LayerNorms (CALM's released code).
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// Published standard deviation of every weight matrix at the start (LLaMA and CALM alike). It is
/// made for widths of 1,000 and more: about `1 / sqrt(d)` keeps the size of activations at any.
pub const WEIGHT_STD: f64 = 0.02;

/// Makes the layers of a model, in order, from one random stream.
///
/// The values are drawn on the host: a seed means the same model on flex, Vulkan and CUDA.
#[derive(Debug)]
pub struct Init<'a> {
    stream: RandomStream,
    device: &'a Device,
    std: f64,
    zero_residual: bool,
    loaded_later: bool,
}

impl<'a> Init<'a> {
    /// A maker of layers on `device` from `seed`.
    pub fn new(seed: u64, device: &'a Device) -> Self {
        Self {
            stream: RandomStream::new(seed),
            device,
            std: WEIGHT_STD,
            zero_residual: false,
            loaded_later: false,
        }
    }

    /// A maker of layers whose matrices wait for numbers from a file: they take no memory, and are zero
    /// to who looks before.
    pub fn unloaded(device: &'a Device) -> Self {
        Self {
            loaded_later: true,
            ..Self::new(0, device)
        }
    }

    /// Another standard deviation of the weights than [`WEIGHT_STD`].
    pub fn with_std(mut self, std: f64) -> Self {
        self.std = std;
        self
    }

    /// Whether residual branches begin at zero ([`Init::branch_end`]).
    pub fn with_zero_residual(mut self, zero: bool) -> Self {
        self.zero_residual = zero;
        self
    }

    /// The device that the layers live on.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// A matrix `[rows, columns]` of normal(0, std) entries.
    pub fn matrix(&mut self, rows: usize, columns: usize) -> Param<Tensor<2>> {
        if self.loaded_later {
            return self.zeros(rows, columns);
        }
        let std = self.std as f32;
        let values = self
            .stream
            .normal(rows * columns)
            .into_iter()
            .map(|x| x * std);
        let data = TensorData::new(values.collect::<Vec<_>>(), [rows, columns]);
        Param::from_tensor(Tensor::from_data(data, self.device))
    }

    /// A linear layer with bias 0.
    pub fn linear(&mut self, d_input: usize, d_output: usize) -> Linear {
        let bias = Param::from_tensor(Tensor::zeros([d_output], self.device));
        Linear {
            weight: self.matrix(d_input, d_output),
            bias: Some(bias),
        }
    }

    /// A linear layer without bias.
    pub fn linear_no_bias(&mut self, d_input: usize, d_output: usize) -> Linear {
        Linear {
            weight: self.matrix(d_input, d_output),
            bias: None,
        }
    }

    /// The last matrix of a residual branch, without bias: zero with [`Init::with_zero_residual`], so
    /// that every layer begins as the identity (arXiv 1706.02677 does so with a branch's last norm).
    pub fn branch_end(&mut self, d_input: usize, d_output: usize) -> Linear {
        match self.zero_residual {
            true => Linear {
                weight: self.zeros(d_input, d_output),
                bias: None,
            },
            false => self.linear_no_bias(d_input, d_output),
        }
    }

    /// A linear layer whose weight and bias are 0.
    pub fn linear_zero(&mut self, d_input: usize, d_output: usize) -> Linear {
        Linear {
            weight: self.zeros(d_input, d_output),
            bias: Some(Param::from_tensor(Tensor::zeros([d_output], self.device))),
        }
    }

    /// A linear layer of a standard deviation of its own, with a bias of zero.
    pub fn linear_std(&mut self, d_input: usize, d_output: usize, std: f64) -> Linear {
        let own = std::mem::replace(&mut self.std, std);
        let layer = self.linear(d_input, d_output);
        self.std = own;
        layer
    }

    /// A linear layer of weights uniform within `sqrt(6 / (in + out))` (Glorot), with a bias of zero.
    pub fn linear_glorot(&mut self, d_input: usize, d_output: usize) -> Linear {
        if self.loaded_later {
            return self.linear_zero(d_input, d_output);
        }
        let bound = (6.0 / (d_input + d_output) as f64).sqrt() as f32;
        let uniform = self.stream.uniform(d_input * d_output);
        let values: Vec<f32> = uniform
            .into_iter()
            .map(|u| bound * (2.0 * u - 1.0))
            .collect();
        let data = TensorData::new(values, [d_input, d_output]);
        Linear {
            weight: Param::from_tensor(Tensor::from_data(data, self.device)),
            ..self.linear_zero(d_input, d_output)
        }
    }

    fn zeros(&self, d_input: usize, d_output: usize) -> Param<Tensor<2>> {
        let shape = [d_input, d_output];
        if self.loaded_later {
            let later = move |device: &Device, grad: bool| {
                Tensor::zeros(shape, device).set_require_grad(grad)
            };
            let (id, device) = (ParamId::new(), self.device.clone());
            return Param::uninitialized(id, later, device, true, shape.into());
        }
        Param::from_tensor(Tensor::zeros(shape, self.device))
    }

    /// An embedding table `[vocab, d]`.
    pub fn embedding(&mut self, vocab: usize, d: usize) -> Embedding {
        Embedding {
            weight: self.matrix(vocab, d),
        }
    }

    /// RMSNorm with weight 1.
    pub fn rms_norm(&self, d: usize, epsilon: f64) -> RmsNorm {
        RmsNormConfig::new(d)
            .with_epsilon(epsilon)
            .init(self.device)
    }

    /// LayerNorm with weight 1 and bias 0.
    pub fn layer_norm(&self, d: usize) -> LayerNorm {
        LayerNormConfig::new(d)
            .with_epsilon(LAYER_NORM_EPS)
            .init(self.device)
    }
}
