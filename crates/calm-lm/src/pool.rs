//! Choosing from pools of draws, each decoded only as far as it decides anything.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::Tensor;
use calm_autoencoder::{BegunChunks, GreedyDecoder};
use calm_likelihood_free::PoolSampler;
use calm_nn::RandomStream;

use crate::rollout::read_tokens;

/// One chunk for each of `rows` contexts, by the sampler, and what that took: up to the rounding of
/// products of other sizes, the chunk that it would choose if all draws were decoded to their ends.
///
/// A draw whose first token no other draw of its pool shares counts once, whatever follows. It is
/// decoded no further, unless it is chosen.
///
/// `drawn` draws the tokens of a latent from the decoder's probabilities instead of taking the most
/// probable. `draw` gives so many latents for each of the contexts that it is told, `[contexts * draws, l]`,
/// context after context.
pub(crate) fn choose<S: PoolSampler>(
    decoder: &GreedyDecoder<'_>,
    chunk_size: usize,
    rows: usize,
    sampler: &S,
    random: &mut RandomStream,
    drawn: Option<&mut RandomStream>,
    mut draw: impl FnMut(&[usize], usize) -> Tensor<2>,
) -> (Vec<Vec<u32>>, Effort) {
    let all: Vec<usize> = (0..rows).collect();
    let nothing = sampler.lacking(&[] as &[u32]);
    if drawn.is_none() && nothing == 1 && sampler.lacking(&[0]) == 0 {
        // Pools of one draw: all positions at once.
        let tokens = read_tokens(decoder.decode(draw(&all, 1)));
        let chunks = tokens.chunks_exact(chunk_size);
        let effort = Effort {
            draws: rows,
            positions: rows * chunk_size,
        };
        return (chunks.map(<[u32]>::to_vec).collect(), effort);
    }
    let mut draws = Pooled {
        begun: None,
        tokens: Vec::new(),
        drawn,
    };
    let mut pools: Vec<Vec<usize>> = vec![Vec::new(); rows];
    let mut lacking = vec![nothing; rows];
    while let Some(&n) = lacking.iter().filter(|&&n| n > 0).min() {
        let going: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&row| lacking[row] > 0)
            .collect();
        draws.begin(decoder, draw(&going, n), &going, n, &mut pools);
        // First tokens, then in one go the rest where those agree: a pass over the vocabulary for
        // every position would cut a few draws more and take longer.
        let fresh = draws.fresh();
        draws.decode(0..1, fresh);
        let agreeing = going.iter().flat_map(|&row| draws.agreeing(&pools[row]));
        let agreeing = agreeing.collect();
        draws.decode(1..chunk_size, agreeing);
        for row in going {
            lacking[row] = sampler.lacking(&draws.chunks(&pools[row]));
        }
    }
    // Draws that stand alone differ from all others as far as they were decoded, so that they are
    // counted as if they were whole.
    let chosen: Vec<usize> = pools
        .iter()
        .map(|pool| pool[sampler.choose(&draws.chunks(pool), random)])
        .collect();
    let short = |&draw: &usize| draws.tokens[draw].len() < chunk_size;
    let short = chosen.iter().copied().filter(short).collect();
    draws.decode(1..chunk_size, short);
    let effort = Effort {
        draws: draws.tokens.len(),
        positions: draws.tokens.iter().map(Vec::len).sum(),
    };
    let take = |draw: usize| std::mem::take(&mut draws.tokens[draw]);
    (chosen.into_iter().map(take).collect(), effort)
}

/// What choosing took.
pub(crate) struct Effort {
    /// Latents drawn.
    pub draws: usize,
    /// Positions of chunks decoded.
    pub positions: usize,
}

/// Draws of all contexts, named by the order in which they were made.
struct Pooled<'a> {
    begun: Option<BegunChunks<'a>>,
    /// Where tokens are drawn, by what.
    drawn: Option<&'a mut RandomStream>,
    /// Per draw, the tokens that are known.
    tokens: Vec<Vec<u32>>,
}

impl<'a> Pooled<'a> {
    /// Adds `n` draws to the pool of each of `rows`.
    fn begin(
        &mut self,
        decoder: &'a GreedyDecoder<'_>,
        latent: Tensor<2>,
        rows: &[usize],
        n: usize,
        pools: &mut [Vec<usize>],
    ) {
        for &row in rows {
            let first = self.tokens.len();
            pools[row].extend(first..first + n);
            self.tokens.resize(first + n, Vec::new());
        }
        match &mut self.begun {
            Some(begun) => begun.extend(latent),
            None => self.begun = Some(decoder.begin(latent)),
        }
    }

    /// The known tokens of a pool's draws.
    fn chunks(&self, pool: &[usize]) -> Vec<&[u32]> {
        let of = |&draw: &usize| self.tokens[draw].as_slice();
        pool.iter().map(of).collect()
    }

    /// The draws of which nothing is known.
    fn fresh(&self) -> Vec<usize> {
        let all = 0..self.tokens.len();
        all.filter(|&draw| self.tokens[draw].is_empty()).collect()
    }

    /// The draws of a pool of which the first token alone is known, and shared with another draw.
    fn agreeing(&self, pool: &[usize]) -> Vec<usize> {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for &draw in pool {
            *counts.entry(self.tokens[draw][0]).or_default() += 1;
        }
        let shared = |&draw: &usize| matches!(self.tokens[draw][..], [first] if counts[&first] > 1);
        pool.iter().copied().filter(shared).collect()
    }

    /// The tokens of some draws at `positions`, which follow those that are known.
    fn decode(&mut self, positions: Range<usize>, mut draws: Vec<usize>) {
        let wanted = !draws.is_empty() && !positions.is_empty();
        let Some(begun) = self.begun.as_ref().filter(|_| wanted) else {
            return;
        };
        draws.sort_unstable();
        let count = positions.len();
        let tokens = match &mut self.drawn {
            Some(random) => begun.draw(positions, &draws, random),
            None => read_tokens(begun.tokens(positions, &draws)),
        };
        for (draw, tokens) in draws.into_iter().zip(tokens.chunks_exact(count)) {
            self.tokens[draw].extend_from_slice(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use calm_autoencoder::{AutoencoderConfig, AutoencoderSettings};
    use calm_kernels::normals;
    use calm_likelihood_free::{BatchSampler, GrowingSampler};
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
                let all = latent.clone();
                let (found, spent) = choose(&decoder, k, pools, &sampler, again, None, |_, _| {
                    all.clone()
                });
                assert_eq!(spent.draws, pools * pool);
                assert_eq!(
                    found, expected,
                    "K = {k}, n = {power}, {distinct} of {pool}"
                );

                let draws = Pooled {
                    begun: Some(decoder.begin(latent)),
                    drawn: None,
                    tokens: whole.iter().map(|chunk| chunk[..1].to_vec()).collect(),
                };
                let of_pool = |first: usize| {
                    let pool: Vec<usize> = (first..first + pool).collect();
                    draws.agreeing(&pool).len()
                };
                let going: usize = (0..whole.len()).step_by(pool).map(of_pool).sum();
                partial += usize::from(going > 0 && going < whole.len());
            }
        }
        assert!(partial > 2, "pools that agree in part: {partial}");
    }

    /// Pools that grow at their own pace, against all draws decoded to their ends in the same order.
    #[test]
    fn growing_pools_choose_as_from_whole_chunks() {
        let device = Device::flex();
        let (rows, k) = (5, 3);
        let autoencoder = small(k).init(&mut Init::new(3, &device).with_std(0.5));
        let decoder = autoencoder.greedy();
        let sampler = GrowingSampler::new(1.0 / 3.0, 120).unwrap();
        // Of row r every draw is one of 4^r latents.
        let latents = |row: usize, from: usize, n: usize| -> Vec<f32> {
            let own = normals(7 + row as u64, 4usize.pow(row as u32).min(200) * L);
            let pick = |i: usize| own.chunks_exact(L).nth(i * 31 % (own.len() / L)).unwrap();
            (from..from + n)
                .flat_map(|i| pick(i).iter().map(|x| 2.0 * x))
                .collect()
        };
        let tensor = |values: Vec<f32>| {
            let count = values.len() / L;
            Tensor::<2>::from_data(TensorData::new(values, [count, L]), &device)
        };
        let mut drawn = vec![0; rows];
        let (found, spent) = choose(
            &decoder,
            k,
            rows,
            &sampler,
            &mut RandomStream::new(1),
            None,
            |going, n| {
                let values = going.iter().flat_map(|&row| {
                    drawn[row] += n;
                    latents(row, drawn[row] - n, n)
                });
                tensor(values.collect())
            },
        );
        assert_eq!(spent.draws, drawn.iter().sum::<usize>());
        assert!((spent.draws..=spent.draws * k).contains(&spent.positions));
        assert!(drawn[0] < drawn[rows - 1], "one pace for all: {drawn:?}");
        let mut random = RandomStream::new(1);
        for (row, found) in found.iter().enumerate() {
            let whole = read_tokens(decoder.decode(tensor(latents(row, 0, 120))));
            let whole: Vec<&[u32]> = whole.chunks_exact(k).collect();
            let mut size = 0;
            while let more @ 1.. = sampler.lacking(&whole[..size]) {
                size += more;
            }
            assert_eq!(size, drawn[row]);
            let pool = &whole[..size];
            assert_eq!(found, pool[sampler.choose(pool, &mut random)], "row {row}");
        }
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
