//! What a chunk costs at a low temperature: the paper's batch rule as it stands beside growing pools.

use std::collections::HashMap;
use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_likelihood_free::{BatchSampler, GenerativeHead, GrowingSampler, PoolSampler};
use calm_lm::{CalmModel, GenerateOptions, Generator, ModelConfig};
use calm_nn::{Decoding, HostDraws, Init, Limits, RandomStream, mix};

use crate::timing::median;

/// Draws of a pool, of a growing one at most.
pub const POOL: usize = 200;

/// A model and the texts that it goes on with.
pub struct Subject {
    /// The model.
    pub model: CalmModel,
    /// Its sizes.
    pub config: ModelConfig,
    /// Token ids.
    pub prompts: Vec<Vec<u32>>,
    /// Chunks drawn after each prompt.
    pub chunks: usize,
}

/// How chunks are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The batch rule, every draw decoded to its end by the scores of all tokens.
    Batch,
    /// The batch rule, every draw decoded to its end by the search that makes no scores.
    Searched,
    /// The batch rule by that search, draws that stand alone decoded no further.
    CutShort,
    /// Growing pools, the corrected rule, draws cut short.
    Cheap,
}

/// What chunks cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Milliseconds a token, the median over prompts.
    pub ms_per_token: f64,
    /// FLOPs of matrix products a token, by count.
    pub flops_per_token: f64,
    /// Draws of the head.
    pub draws_per_chunk: f64,
    /// Bytes of what the decoder holds of a chunk's draws: vectors for K positions of each.
    pub bytes: f64,
}

impl Subject {
    /// Goes on with every prompt in all ways, one after the other, so that a slow minute of the machine
    /// meets all of them.
    ///
    /// # Panics
    /// Where the prompts are not this model's.
    pub fn costs(&self, ways: &[Way], power: u32, device: &Device) -> Vec<Cost> {
        let mut times = vec![Vec::new(); ways.len()];
        // Chunks, draws, positions.
        let mut counts = vec![[0usize; 3]; ways.len()];
        for (i, prompt) in self.prompts.iter().enumerate() {
            for (at, &way) in ways.iter().enumerate() {
                let seed = mix(1, i as u64);
                let (seconds, spent) = match way {
                    Way::Batch | Way::Searched => {
                        self.plainly(way == Way::Searched, prompt, power, seed, device)
                    }
                    Way::CutShort => self.generate(batch(power).into(), prompt, seed, device),
                    Way::Cheap => self.generate(growing(power).into(), prompt, seed, device),
                };
                let tokens = spent[0] * self.config.chunk_size;
                times[at].push(1e3 * seconds / tokens as f64);
                for (sum, more) in counts[at].iter_mut().zip(spent) {
                    *sum += more;
                }
            }
        }
        let sizes = self.config.autoencoder();
        let (k, d) = (self.config.chunk_size, sizes.settings.hidden_size);
        let context = self.prompts[0].len() / k + self.chunks / 2;
        times
            .iter_mut()
            .zip(counts)
            .map(|(times, [chunks, draws, positions])| {
                let per_chunk = |count: usize| count as f64 / chunks as f64;
                let draws = per_chunk(draws);
                // One draw and its decoding are in the cost of a step.
                let step = self.config.inference_flops(context) * k as f64 / 2.0
                    - sizes.decoder_macs() as f64
                    - self.config.head().sample_macs(1) as f64;
                let head = self.config.head();
                let shared = 2 * head.sample_macs(1) - head.sample_macs(2);
                let own = (head.sample_macs(1) - shared) as f64 + sizes.begin_macs() as f64;
                let decoded = per_chunk(positions) * sizes.position_macs() as f64;
                let macs = step + shared as f64 + draws * own + decoded;
                Cost {
                    ms_per_token: median(times),
                    flops_per_token: 2.0 * macs / k as f64,
                    draws_per_chunk: draws,
                    bytes: draws * (k * d * 4) as f64,
                }
            })
            .collect()
    }

    /// Seconds, and chunks, draws and positions decoded.
    fn generate(
        &self,
        sampler: calm_lm::ChunkSampler,
        prompt: &[u32],
        seed: u64,
        device: &Device,
    ) -> (f64, [usize; 3]) {
        let options = GenerateOptions {
            sampler,
            max_tokens: self.chunks * self.config.chunk_size,
            end_of_text: u32::MAX,
            lead_in: &[],
            seed,
        };
        let prompts = [prompt.to_vec()];
        let mut generator = Generator::new(&self.model, &self.config, &prompts, options, device)
            .expect("a prompt of the model's tokens");
        let begun = Instant::now();
        generator.finish();
        let spent = generator.spent();
        let counts = [spent.chunks, spent.draws, spent.positions];
        (begun.elapsed().as_secs_f64(), counts)
    }

    /// The batch rule as it is written: a whole pool, decoded whole.
    fn plainly(
        &self,
        searched: bool,
        prompt: &[u32],
        power: u32,
        seed: u64,
        device: &Device,
    ) -> (f64, [usize; 3]) {
        let (k, sampler) = (self.config.chunk_size, batch(power));
        let limits = Limits {
            window: self.config.window,
            max_tokens: self.chunks * k,
            end_of_text: u32::MAX,
        };
        let backbone = &self.model.language_model.backbone;
        let decoder = self.model.autoencoder.greedy();
        let prompts = [prompt.to_vec()];
        let mut decoding = Decoding::new(backbone, limits, &[], &prompts, device)
            .expect("a prompt of the model's tokens");
        let mut draws = HostDraws::new(mix(seed, 1));
        let mut choice = RandomStream::new(mix(seed, 2));
        let begun = Instant::now();
        let mut chunks = 0;
        while !decoding.is_done() {
            let head = &self.model.language_model.head;
            let latent = head.sample(decoding.hidden(), sampler.pool(), &mut draws);
            let latent = latent.squeeze_dim(1);
            let tokens = match searched {
                true => decoder.decode(latent),
                false => by_scores(&self.model, latent),
            };
            let tokens = tokens.into_data();
            let tokens: Vec<u32> = tokens.iter::<i64>().map(|id| id as u32).collect();
            let pool: Vec<&[u32]> = tokens.chunks_exact(k).collect();
            let chosen = pool[sampler.choose(&pool, &mut choice)].to_vec();
            decoding.push(&[chosen]);
            chunks += 1;
        }
        let drawn = chunks * sampler.pool();
        (begun.elapsed().as_secs_f64(), [chunks, drawn, drawn * k])
    }

    /// So many chunks drawn after each of some prompts, each as a number of its own.
    ///
    /// # Panics
    /// Where the prompts are not this model's.
    pub fn pools(&self, prompts: usize, draws: usize, device: &Device) -> Vec<Vec<Vec<u32>>> {
        let k = self.config.chunk_size;
        let (language_model, decoder) =
            (&self.model.language_model, self.model.autoencoder.greedy());
        let limits = Limits {
            window: self.config.window,
            max_tokens: k,
            end_of_text: u32::MAX,
        };
        let mut random = HostDraws::new(7);
        self.prompts[..prompts]
            .iter()
            .map(|prompt| {
                let backbone = &language_model.backbone;
                let prompts = [prompt.clone()];
                let mut decoding = Decoding::new(backbone, limits, &[], &prompts, device)
                    .expect("a prompt of the model's tokens");
                let mut pool = Vec::with_capacity(draws);
                while pool.len() < draws {
                    let n = (draws - pool.len()).min(1000);
                    let latent = language_model
                        .head
                        .sample(decoding.hidden(), n, &mut random);
                    let tokens = decoder.decode(latent.squeeze_dim(1)).into_data();
                    let tokens: Vec<u32> = tokens.iter::<i64>().map(|id| id as u32).collect();
                    pool.extend(tokens.chunks_exact(k).map(<[u32]>::to_vec));
                }
                pool
            })
            .collect()
    }
}

/// The most likely tokens by the scores of all, some draws at a time: 256 MiB of scores.
fn by_scores(model: &CalmModel, latent: Tensor<2>) -> Tensor<2, Int> {
    let (k, v) = (
        model.autoencoder.chunk_size(),
        model.autoencoder.vocab_size(),
    );
    let some = ((1 << 26) / (k * v)).max(1);
    let best = |latent| {
        model
            .autoencoder
            .logits(latent)
            .argmax(2)
            .squeeze_dim::<2>(2)
    };
    Tensor::cat(latent.split(some, 0).into_iter().map(best).collect(), 0)
}

fn batch(power: u32) -> BatchSampler {
    BatchSampler::new(1.0 / f64::from(power), POOL).expect("1/n")
}

fn growing(power: u32) -> GrowingSampler {
    GrowingSampler::new(1.0 / f64::from(power), POOL).expect("1/n")
}

/// How often each distinct chunk of a pool was drawn, in no order.
pub fn counts(pool: &[Vec<u32>]) -> Vec<f64> {
    let mut counts = HashMap::<&[u32], f64>::new();
    for chunk in pool {
        *counts.entry(chunk).or_default() += 1.0;
    }
    counts.into_values().collect()
}

/// Distinct chunks, and the share of pairs that are equal, of each pool, on average.
pub fn diversity(pools: &[Vec<Vec<u32>>]) -> (f64, f64) {
    let of = |pool: &Vec<Vec<u32>>| {
        let counts = counts(pool);
        let n = pool.len() as f64;
        let equal: f64 = counts.iter().map(|c| c * (c - 1.0)).sum();
        (counts.len() as f64, equal / (n * (n - 1.0)))
    };
    let count = pools.len() as f64;
    let all = pools.iter().map(of);
    let sum = all.fold((0.0, 0.0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    (sum.0 / count, sum.1 / count)
}

/// Draws the last layer of a model's head: a bias of standard deviation 1, which all draws share, and
/// weights of `std`, from which they differ.
///
/// # Panics
/// Where the head is not as wide as the configuration says.
pub fn shape(model: &mut CalmModel, config: &ModelConfig, std: f64, device: &Device) {
    let (d, l) = (config.backbone.hidden_size, config.latent_size);
    let mut layer = Init::new(5, device).with_std(std).linear(d, l);
    let bias = RandomStream::new(6).normal(l);
    let bias = Tensor::<1>::from_data(TensorData::new(bias, [l]), device);
    layer.bias = layer.bias.map(|own| own.map(|_| bias.clone()));
    *model.language_model.head.output_mut() = layer;
}
