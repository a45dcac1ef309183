//! Temperature, top-k and top-p.

use calm_kernels::{boltzmann_weights, draw_softmax};
use calm_nn::RandomStream;
use thiserror::Error;

/// Settings that no distribution has.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum SamplingError {
    /// A temperature below 0 or not finite.
    #[error("temperature {0} is outside 0 <= T < inf (0 takes the most likely token)")]
    Temperature(f64),
    /// No token left.
    #[error("top-k is 0; it must leave at least one token")]
    TopK,
    /// A share outside (0, 1].
    #[error("top-p {0} is outside 0 < p <= 1")]
    TopP(f64),
}

/// Turns the scores of one position into the distribution that the next token is drawn from.
///
/// In this order: divide by the temperature, keep the `top_k` highest scores, keep the smallest
/// set of tokens whose probability reaches `top_p`, normalise. Ties go to the lower id, so that
/// exactly k tokens are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSampler {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
}

impl TokenSampler {
    /// A sampler; `None` leaves a rule out. Temperature 0 is greedy.
    ///
    /// # Errors
    /// Values outside their range.
    pub fn new(
        temperature: f64,
        top_k: Option<usize>,
        top_p: Option<f64>,
    ) -> Result<Self, SamplingError> {
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(SamplingError::Temperature(temperature));
        }
        if top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        if let Some(p) = top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(SamplingError::TopP(p));
        }
        Ok(Self {
            temperature,
            top_k,
            top_p,
        })
    }

    /// Temperature 0: always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
        }
    }

    /// Whether the most likely token is taken always.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The temperature.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Probabilities of all tokens, `logits.len()` of them, summing to 1. They come from weights in
    /// f32, `exp((logit - largest) / T)`, the same that [`TokenSampler::draw`] draws from.
    pub fn distribution(&self, logits: &[f32]) -> Vec<f64> {
        if self.is_greedy() {
            let mut one = vec![0.0; logits.len()];
            one[argmax(logits)] = 1.0;
            return one;
        }
        let mut weights = logits.to_vec();
        boltzmann_weights(&mut weights, self.inverse_temperature());
        self.cut(&mut weights);
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        weights.iter().map(|&w| f64::from(w) / total).collect()
    }

    fn inverse_temperature(&self) -> f32 {
        (1.0 / self.temperature) as f32
    }

    fn is_cut(&self) -> bool {
        self.top_k.is_some() || self.top_p.is_some_and(|share| share < 1.0)
    }

    /// Sets what top-k and top-p leave out to 0.
    fn cut(&self, weights: &mut [f32]) {
        if !self.is_cut() {
            return;
        }
        let kept = self.kept(weights);
        let kept: Vec<(usize, f32)> = kept.into_iter().map(|i| (i, weights[i])).collect();
        weights.fill(0.0);
        for (i, weight) in kept {
            weights[i] = weight;
        }
    }

    /// The tokens that top-k and top-p leave, heaviest first where top-p asks for an order.
    fn kept(&self, weights: &[f32]) -> Vec<usize> {
        let heavier =
            |&a: &usize, &b: &usize| weights[b].total_cmp(&weights[a]).then_with(|| a.cmp(&b));
        let mut order: Vec<usize> = (0..weights.len()).collect();
        if let Some(k) = self.top_k.filter(|&k| k < order.len()) {
            order.select_nth_unstable_by(k - 1, heavier);
            order.truncate(k);
        }
        let Some(share) = self.top_p.filter(|&share| share < 1.0) else {
            return order;
        };
        let total: f64 = order.iter().map(|&i| f64::from(weights[i])).sum();
        // Few tokens hold most of the probability: only as many are put in order as are needed.
        let (mut sorted, mut sum, mut next) = (0, 0.0, 64);
        while sorted < order.len() {
            let until = next.min(order.len());
            if until < order.len() {
                order[sorted..].select_nth_unstable_by(until - sorted - 1, heavier);
            }
            order[sorted..until].sort_unstable_by(heavier);
            for at in sorted..until {
                sum += f64::from(weights[order[at]]);
                if sum >= share * total {
                    order.truncate(at + 1);
                    return order;
                }
            }
            (sorted, next) = (until, 4 * next);
        }
        order
    }

    /// One token for the scores of one position.
    pub fn draw(&self, logits: &[f32], random: &mut RandomStream) -> u32 {
        self.draw_rows(logits.to_vec(), std::slice::from_mut(random))[0]
    }

    /// One token for each of several positions, each drawn with a number of its own stream.
    ///
    /// # Shapes
    /// - logits: `[random.len(), V]`, row by row
    pub fn draw_rows(&self, mut logits: Vec<f32>, random: &mut [RandomStream]) -> Vec<u32> {
        let width = logits.len() / random.len().max(1);
        if self.is_greedy() {
            return logits.chunks(width).map(|row| argmax(row) as u32).collect();
        }
        let uniforms: Vec<f64> = random.iter_mut().map(RandomStream::unit).collect();
        let inverse = self.inverse_temperature();
        if !self.is_cut() {
            return draw_softmax(&mut logits, inverse, &uniforms);
        }
        let rows = logits.chunks_mut(width).zip(uniforms);
        rows.map(|(row, uniform)| {
            boltzmann_weights(row, inverse);
            let kept = self.kept(row);
            let weights: Vec<f64> = kept.iter().map(|&i| f64::from(row[i])).collect();
            kept[index_at(&weights, uniform)] as u32
        })
        .collect()
    }
}

/// The first of the highest scores.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    best
}

/// One index by its weight; the weights need not sum to 1, and one of 0 is never drawn.
pub(crate) fn draw_from(weights: &[f64], random: &mut RandomStream) -> u32 {
    index_at(weights, random.unit()) as u32
}

/// The index at which the running sum of the weights passes `uniform` of their total.
fn index_at(weights: &[f64], uniform: f64) -> usize {
    let mut left = uniform * weights.iter().sum::<f64>();
    let mut last = 0;
    for (i, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            last = i;
            if left < weight {
                break;
            }
            left -= weight;
        }
    }
    last
}
