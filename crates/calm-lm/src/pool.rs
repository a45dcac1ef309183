//! Choosing from pools of draws, each decoded only as far as it decides anything.

use std::collections::HashMap;

use burn::tensor::Tensor;
use calm_autoencoder::{BegunChunks, GreedyDecoder};
use calm_likelihood_free::BatchSampler;
use calm_nn::RandomStream;

use crate::rollout::read_tokens;

/// One chunk of each pool of latents, by the sampler: up to the rounding of products of other
/// sizes, the one that it would choose if all were decoded to their ends.
///
/// A draw whose first tokens no other draw of its pool shares counts once, whatever follows. It is
/// decoded no further, unless it is chosen, which only happens where nothing agrees.
///
/// # Shapes
/// - latent: `[pools * pool, l]`, pool after pool
pub(crate) fn choose(
    decoder: &GreedyDecoder<'_>,
    chunk_size: usize,
    latent: Tensor<2>,
    sampler: &BatchSampler,
    random: &mut RandomStream,
) -> Vec<Vec<u32>> {
    let whole = |latent| -> Vec<Vec<u32>> {
        let tokens = read_tokens(decoder.decode(latent));
        let chunks = tokens.chunks_exact(chunk_size);
        chunks.map(<[u32]>::to_vec).collect()
    };
    let pool = sampler.pool();
    if pool == 1 {
        return whole(latent);
    }
    let mut draws = Draws {
        begun: decoder.begin(latent.clone()),
        tokens: vec![Vec::new(); latent.dims()[0]],
    };
    for position in 0..chunk_size {
        let going = draws.agreeing(position, pool);
        draws.decode(position, &going);
    }
    // Draws that stand alone differ from all others as far as they were decoded, so that they are
    // counted as if they were whole.
    let chosen: Vec<usize> = (0..draws.tokens.len())
        .step_by(pool)
        .map(|first| first + sampler.choose(&draws.tokens[first..first + pool], random))
        .collect();
    let short = |&draw: &usize| draws.tokens[draw].len() < chunk_size;
    let short: Vec<usize> = chosen.iter().copied().filter(short).collect();
    if !short.is_empty() {
        let rows: Vec<i32> = short.iter().map(|&draw| draw as i32).collect();
        let rows = Tensor::from_ints(rows.as_slice(), &latent.device());
        for (draw, chunk) in short.into_iter().zip(whole(latent.select(0, rows))) {
            draws.tokens[draw] = chunk;
        }
    }
    chosen
        .into_iter()
        .map(|draw| std::mem::take(&mut draws.tokens[draw]))
        .collect()
}

struct Draws<'a> {
    begun: BegunChunks<'a>,
    /// Per draw, the tokens that are known.
    tokens: Vec<Vec<u32>>,
}

impl Draws<'_> {
    /// The draws of which `length` tokens are known, shared with another draw of the same pool.
    fn agreeing(&self, length: usize, pool: usize) -> Vec<usize> {
        let mut agreeing = Vec::new();
        for first in (0..self.tokens.len()).step_by(pool) {
            let going = (first..first + pool).filter(|&draw| self.tokens[draw].len() == length);
            let mut counts: HashMap<&[u32], u32> = HashMap::new();
            for draw in going.clone() {
                *counts.entry(&self.tokens[draw]).or_default() += 1;
            }
            agreeing.extend(going.filter(|&draw| counts[self.tokens[draw].as_slice()] > 1));
        }
        agreeing
    }

    /// The tokens of some draws at `position`.
    fn decode(&mut self, position: usize, draws: &[usize]) {
        if draws.is_empty() {
            return;
        }
        let tokens = read_tokens(self.begun.tokens(position, draws));
        for (&draw, token) in draws.iter().zip(tokens) {
            self.tokens[draw].push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
    use calm_kernels::normals;
    use calm_nn::Init;

    /// Against pools decoded to their ends: of latents of their own, of few latents repeated, and
    /// of one; few tokens, so that chunks agree in part.
    #[test]
    fn the_choice_is_that_of_whole_chunks() {
        let device = Device::flex();
        let (pools, mut partial) = (7, 0);
        for (k, power, pool) in [
            (1, 2, 15),
            (4, 1, 1),
            (4, 2, 2),
            (4, 2, 15),
            (4, 3, 15),
            (3, 4, 40),
        ] {
            let autoencoder = small(k).init(&mut Init::new(3, &device).with_std(0.5));
            let decoder = autoencoder.greedy();
            let sampler = BatchSampler::new(1.0 / f64::from(power), pool).unwrap();
            for distinct in [1, 3, pool] {
                let own = normals(5, pools * distinct * L);
                let own: Vec<f32> = own.into_iter().map(|x| 2.0 * x).collect();
                let own =
                    Tensor::<2>::from_data(TensorData::new(own, [pools * distinct, L]), &device);
                let rows: Vec<i32> = (0..pools * pool)
                    .map(|i| (i / pool * distinct + i % pool % distinct) as i32)
                    .collect();
                let latent = own.select(0, Tensor::from_ints(rows.as_slice(), &device));

                let whole = read_tokens(decoder.decode(latent.clone()));
                let whole: Vec<&[u32]> = whole.chunks_exact(k).collect();
                let mut random = RandomStream::new(9);
                let expected: Vec<Vec<u32>> = whole
                    .chunks_exact(pool)
                    .map(|pool| pool[sampler.choose(pool, &mut random)].to_vec())
                    .collect();
                let again = &mut RandomStream::new(9);
                let found = choose(&decoder, k, latent.clone(), &sampler, again);
                assert_eq!(
                    found, expected,
                    "K = {k}, n = {power}, {distinct} of {pool}"
                );

                let draws = Draws {
                    begun: decoder.begin(latent),
                    tokens: whole.iter().map(|chunk| chunk[..1].to_vec()).collect(),
                };
                let going = draws.agreeing(1, pool).len();
                partial += usize::from(going > 0 && going < whole.len());
            }
        }
        assert!(partial > 2, "pools that agree in part: {partial}");
    }

    /// Latent width.
    const L: usize = 8;

    fn small(chunk_size: usize) -> AutoencoderConfig {
        AutoencoderConfig {
            vocab_size: 6,
            chunk_size,
            latent_size: L,
            settings: AutoencoderSettings {
                hidden_size: 16,
                intermediate_size: 24,
                encoder_layers: 2,
                decoder_layers: 2,
                norm_eps: 1e-6,
                token_dropout: 0.0,
                latent_dropout: 0.0,
                kl_weight: 1e-3,
                kl_floor: 0.5,
            },
        }
    }
}
