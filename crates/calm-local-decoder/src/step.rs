//! The local decoder on a text that grows: cached steps, and branches off a cached text.

use burn::tensor::{Device, Tensor, TensorData};
use calm_kernels::cached_local_attention;
use calm_nn::{linear, rms_norm};

use crate::cache::{LocalCache, SLACK, Shape};
use crate::{LocalDecoder, Memory};

/// What alternative continuations of one cached text keep.
#[derive(Clone, Debug, Default)]
pub struct LocalBranches {
    /// Keys and values of a query's own tokens and chunks, in every layer.
    layers: Vec<OwnKeys>,
    steps: usize,
}

#[derive(Clone, Debug, Default)]
struct OwnKeys {
    tokens: Vec<(Tensor<4>, Tensor<4>)>,
    chunks: Vec<(Tensor<4>, Tensor<4>)>,
}

impl LocalDecoder {
    /// An empty cache for `batch` texts of up to `capacity` tokens, which keeps the last W of them
    /// and a few more.
    pub fn cache(&self, batch: usize, capacity: usize, device: &Device) -> LocalCache {
        let kept = self.sizes.window - 1 + SLACK;
        // Twice as many rows, so that they move once in so many steps.
        self.cache_of(batch, capacity, capacity.min(2 * kept), kept, device)
    }

    /// An empty cache for one text of up to `capacity` tokens, which keeps all of them:
    /// [`LocalDecoder::branch`] can start anywhere.
    pub fn whole_cache(&self, capacity: usize, device: &Device) -> LocalCache {
        self.cache_of(1, capacity, capacity, capacity, device)
    }

    fn cache_of(
        &self,
        batch: usize,
        capacity: usize,
        tokens: usize,
        kept: usize,
        device: &Device,
    ) -> LocalCache {
        let sizes = &self.sizes;
        let shape = Shape {
            batch,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            tokens,
            kept: kept.min(tokens),
            chunks: match sizes.memory {
                Memory::None => 0,
                _ => capacity / sizes.chunk,
            },
        };
        LocalCache::new(self.layers.len(), shape, device)
    }

    /// Hidden states of the next tokens, appended to `cache`: that of each holds what is known of the
    /// token after it.
    ///
    /// `fillers[b]` tokens at the front of text b, whole chunks, are hidden from all others.
    ///
    /// # Shapes
    /// - inputs: `[batch, new, d]` ([`LocalDecoder::inputs`])
    /// - entries: of the memory ([`Memory::entries`]), of the chunks that these tokens complete
    /// - output: `[batch, new, d]`
    pub fn step(
        &self,
        inputs: Tensor<3>,
        entries: Option<Tensor<3>>,
        fillers: &[usize],
        cache: &mut LocalCache,
    ) -> Tensor<3> {
        let ([_, new, _], device) = (inputs.dims(), inputs.device());
        let (read, shape, k) = (cache.len(), cache.shape, self.sizes.chunk);
        let rope = self.rope(read..read + new, &device);
        let at_ends = self.rope_of_chunks(read / k..(read + new) / k, &device);
        let mut x = inputs;
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            let memory = entries.clone().zip(layer.memory.as_ref());
            let memory = memory.map(|(entries, project)| project.forward(entries, &at_ends));
            x = layer.block.forward(x, |attention, x| {
                let heads = |(k, v)| (attention.by_kv_heads(k), attention.by_kv_heads(v));
                let (q, k, v) = attention.project(x, &rope);
                let keys = cache.append(read, heads((k, v)), memory.map(heads), shape);
                let context = cached_local_attention(q, &keys, fillers, self.sizes.band());
                linear(&attention.o, context)
            });
        }
        cache.grow(new);
        rms_norm(&self.norm, x)
    }

    /// Continues one cached text in many ways at once: query q reads its next token after the first
    /// `prefix[q]` tokens and the steps that it has taken before, and sees these only. The prefixes
    /// end at the same place of a chunk.
    ///
    /// # Shapes
    /// - inputs: `[queries, d]` ([`LocalDecoder::inputs`])
    /// - entries: `[queries, ..]`, where these tokens complete a chunk of each query
    /// - output: `[queries, d]`
    pub fn branch(
        &self,
        inputs: Tensor<2>,
        entries: Option<Tensor<2>>,
        prefix: &[usize],
        cache: &LocalCache,
        branches: &mut LocalBranches,
    ) -> Tensor<2> {
        let device = inputs.device();
        let sizes = &self.sizes;
        let (band, steps) = (sizes.band(), branches.steps);
        // Where each query's token stands.
        let at: Vec<usize> = prefix.iter().map(|p| p + steps).collect();
        let rope = self.rope(at.iter().copied(), &device);
        let (cached, whole) = (cache.len(), cache.chunks());
        let hidden: Vec<bool> = prefix
            .iter()
            .zip(&at)
            .flat_map(|(&prefix, &t)| {
                let chunks = (0..whole).map(move |chunk| chunk >= prefix / sizes.chunk);
                let tokens = (0..cached).map(move |j| j >= prefix || j < band.first_token(t));
                chunks.chain(tokens)
            })
            .collect();
        let shape = [1, 1, prefix.len(), whole + cached];
        let hidden =
            Tensor::<4, burn::tensor::Bool>::from_bool(TensorData::new(hidden, shape), &device);
        branches
            .layers
            .resize_with(self.layers.len(), OwnKeys::default);
        branches.steps += 1;
        let mut x = inputs.unsqueeze_dim(0);
        for ((layer, cache), own) in self
            .layers
            .iter()
            .zip(&cache.layers)
            .zip(&mut branches.layers)
        {
            let memory = entries.clone().zip(layer.memory.as_ref());
            let memory =
                memory.map(|(entries, project)| project.forward(entries.unsqueeze_dim(0), &rope));
            x = layer.block.forward(x, |attention, x| {
                let heads = |(k, v)| (attention.by_kv_heads(k), attention.by_kv_heads(v));
                let (q, k, v) = attention.project(x, &rope);
                own.tokens.push(heads((k, v)));
                own.chunks.extend(memory.map(heads));
                let (tokens, memory) = cache.held();
                let keys = match memory {
                    None => tokens,
                    Some(memory) => (
                        Tensor::cat(vec![memory.0, tokens.0], 2),
                        Tensor::cat(vec![memory.1, tokens.1], 2),
                    ),
                };
                let near = &own.tokens[(steps + 1).saturating_sub(sizes.window)..];
                let own = near.iter().chain(&own.chunks);
                attention.attend_branches(q, keys, hidden.clone(), own)
            });
        }
        rms_norm(&self.norm, x).squeeze_dim(0)
    }
}
