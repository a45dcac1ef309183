//! Temperature sampling from samples alone.

use std::collections::HashMap;
use std::hash::Hash;

use calm_nn::RandomStream;
use thiserror::Error;

/// Draws independent chunks for one fixed context: anything that a sampler can sharpen.
///
/// Samplers only ever ask whether two chunks are equal, so a chunk may be any type: tokens, text, an
/// index. A closure from a number of draws to so many chunks is a source.
pub trait ChunkSource {
    /// What is drawn.
    type Chunk: Clone + Eq + Hash;

    /// `n` independent chunks.
    fn draw(&mut self, n: usize) -> Vec<Self::Chunk>;
}

impl<C: Clone + Eq + Hash, F: FnMut(usize) -> Vec<C>> ChunkSource for F {
    type Chunk = C;

    fn draw(&mut self, n: usize) -> Vec<C> {
        self(n)
    }
}

/// Chooses one draw of a pool by how many are equal.
pub trait PoolSampler {
    /// Draws that a pool lacks before one of it is chosen; none where it is whole.
    fn lacking<C: Eq + Hash>(&self, pool: &[C]) -> usize;

    /// The probability of each distinct chunk of a pool, by the index of its first occurrence and in
    /// that order; those that are never chosen may be missing, and an empty pool has none.
    fn probabilities<C: Eq + Hash>(&self, pool: &[C]) -> Vec<(usize, f64)>;

    /// The index of the chosen chunk in a pool.
    ///
    /// # Panics
    /// Where the pool is empty.
    fn choose<C: Eq + Hash>(&self, pool: &[C], random: &mut RandomStream) -> usize {
        let probabilities = self.probabilities(pool);
        let mut rest = random.unit();
        for &(index, probability) in &probabilities {
            rest -= probability;
            if rest < 0.0 {
                return index;
            }
        }
        probabilities
            .last()
            .expect("a pool with at least one chunk")
            .0
    }

    /// One chunk from `source`, and how many draws it took.
    ///
    /// # Panics
    /// Where the source draws nothing.
    fn sample<S: ChunkSource>(
        &self,
        source: &mut S,
        random: &mut RandomStream,
    ) -> (S::Chunk, usize) {
        let mut pool = Vec::new();
        loop {
            match self.lacking(&pool) {
                0 => break,
                more => {
                    let drawn = source.draw(more);
                    assert!(!drawn.is_empty(), "a source that draws nothing");
                    pool.extend(drawn);
                }
            }
        }
        let (draws, chosen) = (pool.len(), self.choose(&pool, random));
        (pool.swap_remove(chosen), draws)
    }
}

/// The distinct chunks of a pool in order of first occurrence: its index, and how often the chunk was
/// drawn.
pub(crate) fn count<C: Eq + Hash>(pool: &[C]) -> Vec<(usize, u32)> {
    let mut slot: HashMap<&C, usize> = HashMap::new();
    let mut counts: Vec<(usize, u32)> = Vec::new();
    for (index, chunk) in pool.iter().enumerate() {
        let at = *slot.entry(chunk).or_insert_with(|| {
            counts.push((index, 0));
            counts.len() - 1
        });
        counts[at].1 += 1;
    }
    counts
}

/// A temperature that a sampler can't serve.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplerError {
    /// The batch sampler needs T = 1/n.
    #[error(
        "temperature {temperature} is not 1/n for a whole n: samplers that choose from a pool serve 1, 1/2, 1/3, ..; nearest is 1/{nearest} = {:.4}",
        1.0 / f64::from(*nearest)
    )]
    NotReciprocal {
        /// What was asked for.
        temperature: f64,
        /// The nearest n.
        nearest: u32,
    },
    /// The pool must hold at least n draws.
    #[error("a pool of {pool} draws is smaller than n = {power} (temperature 1/{power})")]
    SmallPool {
        /// Draws per chunk.
        pool: usize,
        /// n.
        power: u32,
    },
    /// Samplers sharpen a distribution; none can flatten it.
    #[error("temperature {temperature} is outside (0, 1]")]
    OutsideUnit {
        /// What was asked for.
        temperature: f64,
    },
    /// Not even one attempt could end.
    #[error(
        "a budget of {budget} draws is below the {needed} of one attempt at temperature {temperature}"
    )]
    SmallBudget {
        /// Draws for a chunk at most.
        budget: usize,
        /// Of one attempt.
        needed: usize,
        /// The temperature.
        temperature: f64,
    },
    /// The exact algorithm accepted none in time.
    #[error(
        "no chunk was accepted in {draws} draws: the distribution is too flat for this temperature and budget"
    )]
    BudgetSpent {
        /// How many were made.
        draws: usize,
    },
}

/// The batch approximation of sampling from `P(x)^(1/T) / Z` (CALM, section 5, Algorithm 2), T = 1/n.
///
/// Of a pool of N draws, with counts c(x): for m = n, n-1, .., 1, where any chunk has c(x) >= m,
/// one of those is picked with weight `binomial(c(x), m)`. Biased at finite N, consistent as N
/// grows. At n = 1 one draw is enough and is exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSampler {
    power: u32,
    pool: usize,
}

impl BatchSampler {
    /// A sampler at `temperature` = 1/n with a pool of `pool` draws per chunk (released default
    /// 200); at temperature 1 the pool is 1.
    ///
    /// # Errors
    /// Where the temperature is no 1/n, or the pool is smaller than n.
    pub fn new(temperature: f64, pool: usize) -> Result<Self, SamplerError> {
        let nearest = if temperature > 0.0 && temperature.is_finite() {
            (1.0 / temperature).round().clamp(1.0, 1e6) as u32
        } else {
            1
        };
        // 0.33 and 0.167 are accepted as what they are meant to be; false for NaN.
        let off = (1.0 / temperature - f64::from(nearest)).abs();
        let served = off < if nearest == 1 { 1e-6 } else { 0.035 };
        if !served {
            return Err(SamplerError::NotReciprocal {
                temperature,
                nearest,
            });
        }
        let pool = if nearest == 1 { 1 } else { pool };
        if pool < nearest as usize {
            return Err(SamplerError::SmallPool {
                pool,
                power: nearest,
            });
        }
        Ok(Self {
            power: nearest,
            pool,
        })
    }

    /// The rule at temperature 1/`power` on pools of `pool` draws, which may be fewer than that.
    pub(crate) fn of_power(power: u32, pool: usize) -> Self {
        Self { power, pool }
    }

    /// The temperature served, 1/n.
    pub fn temperature(&self) -> f64 {
        1.0 / f64::from(self.power)
    }

    /// n, the reciprocal of the temperature.
    pub fn power(&self) -> u32 {
        self.power
    }

    /// Draws per chunk.
    pub fn pool(&self) -> usize {
        self.pool
    }
}

impl PoolSampler for BatchSampler {
    fn lacking<C: Eq + Hash>(&self, pool: &[C]) -> usize {
        self.pool.saturating_sub(pool.len())
    }

    fn probabilities<C: Eq + Hash>(&self, pool: &[C]) -> Vec<(usize, f64)> {
        let counts = count(pool);
        let largest = counts.iter().map(|&(_, count)| count).max().unwrap_or(0);
        let m = self.power.min(largest);
        // Over that of the largest count.
        let mut weights: Vec<(usize, f64)> = counts
            .into_iter()
            .filter(|&(_, count)| count >= m)
            .map(|(index, count)| (index, binomial_ratio(count, largest, m)))
            .collect();
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in &mut weights {
            *weight /= total;
        }
        weights
    }
}

/// `binomial(n, k) / binomial(largest, k)` for `k <= n <= largest`: the coefficients alone exceed
/// f64 from pools of about a thousand.
pub(crate) fn binomial_ratio(n: u32, largest: u32, k: u32) -> f64 {
    (0..k)
        .map(|i| f64::from(n - i) / f64::from(largest - i))
        .product()
}
