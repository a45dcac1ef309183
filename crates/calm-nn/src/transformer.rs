//! The LLaMA-style decoder: the trunk of the CALM backbone and of the token baseline.

mod attention;

use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::{Device, Tensor};
use calm_kernels::checkpoint;
use serde::{Deserialize, Serialize};

pub use attention::{AttentionMask, SelfAttention};

use crate::{
    ConfigError, Cost, Init, KvCache, PartMemory, Rope, StepCache, SwiGlu, TrainingMemory,
    f32_bytes, rms_norm,
};

/// Sizes of a transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Layers; without any, what is read is normed and that is all.
    pub layers: usize,
    /// Hidden width d.
    pub hidden_size: usize,
    /// Inner width of the SwiGLU.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon of the RMSNorms.
    pub norm_eps: f64,
}

impl TransformerConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the field and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::positive("hidden_size", self.hidden_size)?;
        ConfigError::positive("intermediate_size", self.intermediate_size)?;
        ConfigError::positive("heads", self.heads)?;
        ConfigError::positive("kv_heads", self.kv_heads)?;
        ConfigError::multiple("hidden_size", self.hidden_size, "2 * heads", 2 * self.heads)?;
        ConfigError::multiple("heads", self.heads, "kv_heads", self.kv_heads)?;
        let (theta, eps) = (self.rope_theta, self.norm_eps);
        let inside = theta > 0.0 && theta.is_finite();
        ConfigError::range("rope_theta", theta, inside, "0 < theta < inf")?;
        let inside = eps > 0.0 && eps.is_finite();
        ConfigError::range("norm_eps", eps, inside, "0 < eps < inf")
    }

    /// The transformer with fresh weights.
    pub fn init(&self, init: &mut Init<'_>) -> Transformer {
        Transformer {
            layers: (0..self.layers).map(|_| Block::new(self, init)).collect(),
            norm: init.rms_norm(self.hidden_size, self.norm_eps),
            head_dim: self.head_dim(),
            kv_heads: self.kv_heads,
            rope_theta: self.rope_theta,
        }
    }

    /// What training holds of one layer, of the final norm apart, for some positions.
    ///
    /// Kept are the inputs of both norms and of all seven matrices, turned queries and keys, values, the
    /// logarithms of attention's sums, and the two factors of the gate: `6 d + 2 kv + 3 ff + heads`
    /// numbers a position.
    pub fn layer_memory(&self, positions: usize, checkpointing: bool) -> PartMemory {
        let (d, ff) = (self.hidden_size, self.intermediate_size);
        let kv = self.kv_heads * self.head_dim();
        let of = |width: usize| f32_bytes(positions * width);
        let weights = 2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d;
        let layer = PartMemory {
            parameters: f32_bytes(weights),
            largest: f32_bytes(d * d.max(ff)),
            kept: of(6 * d + 2 * kv + 3 * ff + self.heads),
            forward: of(d),
            // Gradients of the output, of the gate's factors and of the last matrix.
            backward: of(d + 2 * ff) + f32_bytes(d * ff),
        };
        match checkpointing {
            true => layer.checkpointed(of(d), of(d)),
            false => layer,
        }
    }

    fn matrix_weights(&self) -> u64 {
        let d = self.hidden_size as u64;
        let kv = (self.kv_heads * self.head_dim()) as u64;
        let per_layer =
            2 * d * d + 2 * d * kv + SwiGlu::weights(self.hidden_size, self.intermediate_size);
        per_layer * self.layers as u64
    }
}

impl TrainingMemory for TransformerConfig {
    /// The layers and the final norm.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let mut parts = vec![self.layer_memory(positions, checkpointing); self.layers];
        parts.push(norm_memory(positions, self.hidden_size));
        parts
    }
}

/// What training holds of an RMSNorm, whose input alone it keeps.
pub fn norm_memory(positions: usize, d: usize) -> PartMemory {
    PartMemory {
        parameters: f32_bytes(d),
        largest: f32_bytes(d),
        kept: f32_bytes(positions * d),
        forward: f32_bytes(positions * d),
        backward: f32_bytes(2 * positions * d),
    }
}

impl Cost for TransformerConfig {
    fn parameters(&self) -> u64 {
        let norms = (2 * self.layers + 1) * self.hidden_size;
        self.matrix_weights() + norms as u64
    }

    /// Attention counts `2 * context * d` per layer, not halved for causality.
    fn forward_macs(&self, context: usize) -> u64 {
        self.matrix_weights() + (2 * context * self.hidden_size * self.layers) as u64
    }

    fn cache_bytes(&self) -> u64 {
        (2 * self.kv_heads * self.head_dim() * self.layers * size_of::<f32>()) as u64
    }
}

/// One layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before attention.
    pub input_norm: RmsNorm,
    /// Self-attention.
    pub attention: SelfAttention,
    /// Norm before the feed-forward layer.
    pub post_attention_norm: RmsNorm,
    /// Feed-forward layer.
    pub mlp: SwiGlu,
}

impl Block {
    /// A layer of the size in `config`.
    pub fn new(config: &TransformerConfig, init: &mut Init<'_>) -> Self {
        let norm = |init: &Init<'_>| init.rms_norm(config.hidden_size, config.norm_eps);
        Self {
            input_norm: norm(init),
            attention: SelfAttention::new(config, init),
            post_attention_norm: norm(init),
            mlp: SwiGlu::new(config.hidden_size, config.intermediate_size, init),
        }
    }

    /// The layer with attention made by `attend`, from the layer's own and the normed input.
    ///
    /// # Shapes
    /// - x: `[batch, positions, d]`
    /// - output: the same
    pub fn forward(
        &self,
        x: Tensor<3>,
        attend: impl FnOnce(&SelfAttention, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let x = x.clone() + attend(&self.attention, rms_norm(&self.input_norm, x));
        x.clone() + self.mlp.forward(rms_norm(&self.post_attention_norm, x))
    }
}

/// A stack of [`Block`]s and a final RMSNorm.
#[derive(Module, Debug)]
pub struct Transformer {
    /// The layers.
    pub layers: Vec<Block>,
    /// The final norm.
    pub norm: RmsNorm,
    head_dim: usize,
    kv_heads: usize,
    rope_theta: f64,
}

impl Transformer {
    /// Hidden states of a whole sequence; each layer is [`checkpoint`]ed where that is asked for.
    ///
    /// # Shapes
    /// - x: `[batch, positions, d]`
    /// - output: `[batch, positions, d]`, position i sees positions 0..=i
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let rope = self.rope(0..x.dims()[1], &x.device().without_autodiff());
        let layer = move |layer: &Block, [x]: [Tensor<3>; 1]| {
            layer.forward(x, |attention, x| attention.forward(x, &rope))
        };
        let hidden = (self.layers.iter()).fold(x, |x, block| checkpoint(block, [x], layer.clone()));
        rms_norm(&self.norm, hidden)
    }

    /// Query heads per layer.
    pub fn heads(&self) -> usize {
        self.layers
            .first()
            .map_or(1, |layer| layer.attention.heads())
    }

    /// An empty cache for `batch` sequences of up to `capacity` positions.
    pub fn cache(&self, batch: usize, capacity: usize, device: &Device) -> KvCache {
        let shape = [batch, self.kv_heads, capacity, self.head_dim];
        KvCache::new(self.layers.len(), shape, device)
    }

    /// Hidden states of the next positions, appended to `cache`.
    ///
    /// `fillers[b]` positions at the front of sequence `b` are hidden from all others, which is
    /// what a batch of unequal prompts needs. Their own hidden states mean nothing.
    ///
    /// # Shapes
    /// - x: `[batch, new, d]`
    /// - output: `[batch, new, d]`
    pub fn step(&self, x: Tensor<3>, fillers: &[usize], cache: &mut KvCache) -> Tensor<3> {
        let [batch, new, _] = x.dims();
        let held = cache.len();
        let rope = self.rope(held..held + new, &x.device());
        let all = vec![0; batch];
        let fillers = if fillers.is_empty() { &all } else { fillers };
        let hidden = self
            .layers
            .iter()
            .zip(&mut cache.layers)
            .fold(x, |x, (layer, cache)| {
                layer.forward(x, |attention, x| attention.step(x, &rope, fillers, cache))
            });
        cache.grow(new);
        rms_norm(&self.norm, hidden)
    }

    /// Continues one cached sequence in many ways at once: query q branches off after its first
    /// `prefix[q]` positions and sees them and its own earlier steps only.
    ///
    /// `branches` starts as `Branches::default()` and collects the steps.
    ///
    /// # Shapes
    /// - x: `[1, queries, d]`, the input at position `prefix[q] + steps taken`
    /// - output: `[1, queries, d]`
    pub fn branch(
        &self,
        x: Tensor<3>,
        prefix: &[usize],
        cache: &KvCache,
        branches: &mut Branches,
    ) -> Tensor<3> {
        let device = x.device();
        let (queries, cached) = (prefix.len(), cache.len());
        let hidden: Vec<bool> = prefix
            .iter()
            .flat_map(|&seen| (0..cached).map(move |key| key >= seen))
            .collect();
        let hidden = bool_tensor(hidden, [1, 1, queries, cached], &device);
        let rope = self.rope(prefix.iter().map(|p| p + branches.steps), &device);
        branches.own.resize_with(self.layers.len(), Vec::new);
        branches.steps += 1;
        let mut x = x;
        for ((layer, cache), own) in self.layers.iter().zip(&cache.layers).zip(&mut branches.own) {
            x = layer.forward(x, |attention, x| {
                attention.branch(x, &rope, hidden.clone(), cache, own)
            });
        }
        rms_norm(&self.norm, x)
    }

    fn rope(&self, positions: impl IntoIterator<Item = usize>, device: &Device) -> Rope {
        Rope::at(positions, self.head_dim, self.rope_theta, device)
    }
}

/// Keys and values of the steps that [`Transformer::branch`] took, per layer.
#[derive(Clone, Debug, Default)]
pub struct Branches {
    own: Vec<Vec<(Tensor<4>, Tensor<4>)>>,
    steps: usize,
}

impl Branches {
    /// Keeps only the branches at `rows`, in that order.
    pub fn select(&mut self, rows: &[usize], device: &Device) {
        let rows: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let rows = Tensor::<1, burn::tensor::Int>::from_ints(rows.as_slice(), device);
        for (k, v) in self.own.iter_mut().flatten() {
            *k = k.clone().select(2, rows.clone());
            *v = v.clone().select(2, rows.clone());
        }
    }
}

fn bool_tensor(values: Vec<bool>, shape: [usize; 4], device: &Device) -> AttentionMask {
    Tensor::from_bool(burn::tensor::TensorData::new(values, shape), device)
}
