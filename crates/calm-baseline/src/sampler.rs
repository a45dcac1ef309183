//! Temperature, top-k and top-p.

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

    /// The temperature.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Probabilities of all tokens, `logits.len()` of them, summing to 1.
    pub fn distribution(&self, logits: &[f32]) -> Vec<f64> {
        if self.temperature == 0.0 {
            let mut one = vec![0.0; logits.len()];
            one[argmax(logits)] = 1.0;
            return one;
        }
        let highest = f64::from(logits[argmax(logits)]);
        let mut p: Vec<f64> = logits
            .iter()
            .map(|&x| ((f64::from(x) - highest) / self.temperature).exp())
            .collect();
        if self.top_k.is_some() || self.top_p.is_some() {
            self.cut(&mut p);
        }
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= total);
        p
    }

    /// Sets what top-k and top-p leave out to 0; `weights` need not sum to 1.
    fn cut(&self, weights: &mut [f64]) {
        let descending =
            |&a: &usize, &b: &usize| weights[b].total_cmp(&weights[a]).then_with(|| a.cmp(&b));
        let mut order: Vec<usize> = (0..weights.len()).collect();
        let k = self.top_k.unwrap_or(order.len()).min(order.len());
        if k < order.len() {
            order.select_nth_unstable_by(k - 1, descending);
            order.truncate(k);
        }
        let mut kept = order.len();
        if let Some(share) = self.top_p {
            order.sort_unstable_by(descending);
            let total: f64 = order.iter().map(|&i| weights[i]).sum();
            let mut sum = 0.0;
            let reaches = |&i: &usize| {
                sum += weights[i];
                sum >= share * total
            };
            kept = order.iter().position(reaches).map_or(kept, |last| last + 1);
        }
        let mut left_out = vec![true; weights.len()];
        for &i in &order[..kept] {
            left_out[i] = false;
        }
        for (weight, out) in weights.iter_mut().zip(left_out) {
            if out {
                *weight = 0.0;
            }
        }
    }

    /// One token for the scores of one position.
    pub fn draw(&self, logits: &[f32], random: &mut RandomStream) -> u32 {
        if self.temperature == 0.0 {
            return argmax(logits) as u32;
        }
        draw_from(&self.distribution(logits), random)
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
    let total: f64 = weights.iter().sum();
    let mut left = random.unit() * total;
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
    last as u32
}
