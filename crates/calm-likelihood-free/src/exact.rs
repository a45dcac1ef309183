//! Temperature sampling without bias, by rejection and a Bernoulli factory.

use std::hash::Hash;

use calm_nn::RandomStream;

use crate::BatchSampler;
use crate::sampler::{ChunkSource, PoolSampler, SamplerError};

/// The exact sampler of `P(x)^(1/T) / Z` for any T in (0, 1] (CALM, section 5, Algorithm 1).
///
/// With 1/T = n + a, n whole and 0 <= a < 1, an attempt draws n chunks and fails at the first that
/// differs from the first of them, x. Where a > 0 a Bernoulli factory then lets x pass with
/// probability `P(x)^a`: for i = 1, 2, .. another chunk is drawn, which passes x if it equals x, and
/// else fails the attempt with probability a/i.
///
/// With `Z = sum_x P(x)^(1/T)`, a sample takes
/// `(1 + sum_{j < n} sum_x P(x)^j + 1{a > 0} sum_x P(x)^(1/T - 1)) / Z` draws on average (j from 1):
/// few where P is peaked, and without limit where it is flat. So it has a budget. At T = 1/n what it
/// accepts within any budget is without bias, since every accepted attempt takes n draws. Elsewhere the
/// factory takes longer for a rare x, and a budget that cuts it off favours likely ones; where it
/// seldom does, seldom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExactSampler {
    /// n
    whole: u32,
    /// a
    part: f64,
    budget: usize,
    otherwise: Otherwise,
}

/// What an [`ExactSampler`] does when its budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It gives up: [`SamplerError::BudgetSpent`].
    Fail,
    /// The batch rule ([`BatchSampler`]) on all that was drawn, at T = 1/n; where 1/T = n + a, at
    /// 1/(n + 1) with probability a. Biased.
    Batch,
}

/// A chunk and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled<C> {
    /// The chunk.
    pub chunk: C,
    /// Draws that the source was asked for.
    pub draws: usize,
    /// Whether the exact algorithm accepted it; otherwise the batch rule chose it.
    pub exact: bool,
}

impl ExactSampler {
    /// A sampler at `temperature` that spends `budget` draws on a sample at most.
    ///
    /// # Errors
    /// A temperature outside (0, 1], or a budget of fewer draws than an attempt takes.
    pub fn new(
        temperature: f64,
        budget: usize,
        otherwise: Otherwise,
    ) -> Result<Self, SamplerError> {
        // false for NaN.
        let inside = temperature > 0.0 && temperature <= 1.0;
        if !inside {
            return Err(SamplerError::OutsideUnit { temperature });
        }
        // Colder than 1/u32::MAX no budget is large enough, nor is it at that.
        let power = (1.0 / temperature).min(f64::from(u32::MAX));
        // 1/3 and 0.1 have no exact f64; a factory for the rounding would only cost draws.
        let nearest = power.round();
        let (whole, part) = match (power - nearest).abs() < 1e-9 * power {
            true => (nearest, 0.0),
            false => (power.floor(), power.fract()),
        };
        let whole = whole as u32;
        let needed = whole as usize + usize::from(part > 0.0);
        if budget < needed {
            return Err(SamplerError::SmallBudget {
                budget,
                needed,
                temperature,
            });
        }
        Ok(Self {
            whole,
            part,
            budget,
            otherwise,
        })
    }

    /// The temperature served.
    pub fn temperature(&self) -> f64 {
        1.0 / (f64::from(self.whole) + self.part)
    }

    /// Draws for a chunk at most.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// The same sampler, which falls back to the batch rule when its budget is spent.
    pub fn falling_back(self) -> Self {
        Self {
            otherwise: Otherwise::Batch,
            ..self
        }
    }

    /// One chunk from `source`.
    ///
    /// # Errors
    /// [`SamplerError::BudgetSpent`], where the sampler was told to fail.
    pub fn sample<S: ChunkSource>(
        &self,
        source: &mut S,
        random: &mut RandomStream,
    ) -> Result<Sampled<S::Chunk>, SamplerError> {
        let mut attempts = self.begin();
        loop {
            if let Some(outcome) = attempts.push(source.draw(attempts.wanted()), random) {
                return outcome;
            }
        }
    }

    /// The attempts for one context, which whoever draws for many contexts at once feeds.
    pub fn begin<C: Clone + Eq + Hash>(&self) -> Attempts<C> {
        Attempts {
            sampler: *self,
            drawn: Vec::new(),
            read: 0,
            stage: Stage::First,
        }
    }
}

/// An [`ExactSampler`] at work on one context.
#[derive(Clone, Debug)]
pub struct Attempts<C> {
    sampler: ExactSampler,
    drawn: Vec<C>,
    /// Draws that attempts have looked at.
    read: usize,
    stage: Stage,
}

/// Where an attempt stands; x is named by its index among the draws.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The next draw is x.
    First,
    /// So many draws were x.
    Same { x: usize, agreed: u32 },
    /// The factory's round i.
    Factory { x: usize, round: u32 },
}

impl<C: Clone + Eq + Hash> Attempts<C> {
    /// Draws that the attempt may look at next, at least 1 and within the budget.
    pub fn wanted(&self) -> usize {
        let n = self.sampler.whole as usize;
        let attempt = match self.stage {
            Stage::First => n,
            Stage::Same { agreed, .. } => n - agreed as usize,
            Stage::Factory { .. } => 1,
        };
        attempt.min(self.left())
    }

    /// Draws that are left of the budget.
    pub fn left(&self) -> usize {
        self.sampler.budget.saturating_sub(self.drawn.len())
    }

    /// Takes draws, as many as are wanted or more; the outcome, once there is one. More than are
    /// wanted are kept for the next attempts: they are as good as later ones.
    ///
    /// # Errors
    /// [`SamplerError::BudgetSpent`], where the sampler was told to fail.
    ///
    /// # Panics
    /// Where there are no draws.
    pub fn push(
        &mut self,
        draws: Vec<C>,
        random: &mut RandomStream,
    ) -> Option<Result<Sampled<C>, SamplerError>> {
        assert!(!draws.is_empty(), "a source that draws nothing");
        self.drawn.extend(draws);
        while self.read < self.drawn.len() {
            let draw = self.read;
            self.read += 1;
            if let Some(x) = self.look_at(draw, random) {
                return Some(Ok(self.sampled(x, true)));
            }
        }
        (self.drawn.len() >= self.sampler.budget).then(|| self.give_up(random))
    }

    /// x, if it is accepted with this draw.
    fn look_at(&mut self, draw: usize, random: &mut RandomStream) -> Option<usize> {
        let ExactSampler { whole, part, .. } = self.sampler;
        let same = |x: usize| self.drawn[x] == self.drawn[draw];
        let (x, agreed) = match self.stage {
            Stage::First => (draw, 1),
            Stage::Same { x, agreed } if same(x) => (x, agreed + 1),
            Stage::Factory { x, .. } if same(x) => return Some(x),
            Stage::Factory { x, round } if random.unit() >= part / f64::from(round) => {
                let round = round + 1;
                self.stage = Stage::Factory { x, round };
                return None;
            }
            Stage::Same { .. } | Stage::Factory { .. } => {
                self.stage = Stage::First;
                return None;
            }
        };
        self.stage = match agreed < whole {
            true => Stage::Same { x, agreed },
            false if part == 0.0 => return Some(x),
            false => Stage::Factory { x, round: 1 },
        };
        None
    }

    fn give_up(&self, random: &mut RandomStream) -> Result<Sampled<C>, SamplerError> {
        let draws = self.drawn.len();
        match self.sampler.otherwise {
            Otherwise::Fail => Err(SamplerError::BudgetSpent { draws }),
            Otherwise::Batch => {
                let ExactSampler { whole, part, .. } = self.sampler;
                let sharper = part > 0.0 && random.unit() < part;
                let rule = BatchSampler::of_power(whole + u32::from(sharper), draws);
                Ok(self.sampled(rule.choose(&self.drawn, random), false))
            }
        }
    }

    fn sampled(&self, x: usize, exact: bool) -> Sampled<C> {
        Sampled {
            chunk: self.drawn[x].clone(),
            draws: self.drawn.len(),
            exact,
        }
    }
}
