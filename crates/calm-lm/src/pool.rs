//! Choosing from pools of draws, each decoded only as far as it decides anything.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::Tensor;
use calm_autoencoder::{BegunChunks, GreedyDecoder};
use calm_likelihood_free::BatchSampler;
use calm_nn::RandomStream;

use crate::rollout::read_tokens;

/// One chunk of each pool of latents, by the sampler: the ones that it would choose if all were
/// decoded to their ends.
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
    let [draws, _] = latent.dims();
    let pool = sampler.pool();
    if pool == 1 {
        let tokens = read_tokens(decoder.decode(latent));
        return tokens
            .chunks_exact(chunk_size)
            .map(<[u32]>::to_vec)
            .collect();
    }
    let mut draws = Draws {
        begun: decoder.begin(latent),
        tokens: vec![Vec::with_capacity(chunk_size); draws],
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
    for position in 0..chunk_size {
        let short = |&draw: &usize| draws.tokens[draw].len() == position;
        let short: Vec<usize> = chosen.iter().copied().filter(short).collect();
        draws.decode(position, &short);
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
        let going = |pool: Range<usize>| pool.filter(|&draw| self.tokens[draw].len() == length);
        let mut agreeing = Vec::new();
        for first in (0..self.tokens.len()).step_by(pool) {
            let pool = first..first + pool;
            let mut counts: HashMap<&[u32], u32> = HashMap::new();
            for draw in going(pool.clone()) {
                *counts.entry(&self.tokens[draw]).or_default() += 1;
            }
            agreeing.extend(going(pool).filter(|&draw| counts[self.tokens[draw].as_slice()] > 1));
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
    use burn::tensor::{Device, Distribution};
    use calm_autoencoder::AutoencoderConfig;
    use calm_nn::Init;

    /// Against pools decoded to their ends: of latents of their own, of few latents repeated, and
    /// of one; few tokens, so that chunks agree in part.
    #[test]
    fn the_choice_is_that_of_whole_chunks() {
        let device = Device::flex();
        device.seed(5);
        let autoencoder = small().init(&mut Init::new(3, &device).with_std(0.5));
        let decoder = autoencoder.greedy();
        let (pools, mut partial) = (7, 0);
        for (power, pool) in [(1, 1), (2, 2), (2, 15), (3, 15), (4, 40)] {
            let sampler = BatchSampler::new(1.0 / f64::from(power), pool).unwrap();
            for distinct in [1, 3, pool] {
                let own = Distribution::Normal(0.0, 2.0);
                let latent = Tensor::<2>::random([pools * distinct, 8], own, &device);
                let rows: Vec<i32> = (0..pools * pool)
                    .map(|i| (i / pool * distinct + i % pool % distinct) as i32)
                    .collect();
                let rows = Tensor::from_ints(rows.as_slice(), &device);
                let latent = latent.select(0, rows);

                let whole = read_tokens(decoder.decode(latent.clone()));
                let whole: Vec<&[u32]> = whole.chunks_exact(4).collect();
                let mut random = RandomStream::new(9);
                let expected: Vec<Vec<u32>> = whole
                    .chunks_exact(pool)
                    .map(|pool| pool[sampler.choose(pool, &mut random)].to_vec())
                    .collect();
                let again = &mut RandomStream::new(9);
                let found = choose(&decoder, 4, latent.clone(), &sampler, again);
                assert_eq!(found, expected, "n = {power}, {distinct} of {pool}");

                let mut draws = Draws {
                    begun: decoder.begin(latent),
                    tokens: whole.iter().map(|chunk| chunk[..1].to_vec()).collect(),
                };
                let going = draws.agreeing(1, pool);
                draws.decode(1, &going);
                partial += usize::from(!going.is_empty() && going.len() < whole.len());
            }
        }
        assert!(partial > 2, "pools that agree in part: {partial}");
    }

    fn small() -> AutoencoderConfig {
        AutoencoderConfig {
            vocab_size: 6,
            chunk_size: 4,
            latent_size: 8,
            hidden_size: 16,
            intermediate_size: 24,
            encoder_layers: 2,
            decoder_layers: 2,
            norm_eps: 1e-6,
            token_dropout: 0.0,
            latent_dropout: 0.0,
            kl_weight: 1e-3,
            kl_floor: 0.5,
        }
    }
}
