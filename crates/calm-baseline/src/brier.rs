//! Brier-1..4 at every position of a window, of a model that knows its own probabilities.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_nn::{Draws, MAX_N, NextToken, chunk_tensor};

/// Scores of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowScores {
    /// Negative log-likelihood, in nats, of token 1, 2, .. of the window.
    pub surprisal: Vec<f64>,
    /// Positions p whose n-grams `p..p + n` were scored, ascending: the multiples of the stride
    /// asked for, from the first with a token before it to the last with [`MAX_N`] tokens left.
    pub positions: Vec<usize>,
    /// Brier-1..4 at each of these positions.
    pub brier: Vec<[f64; MAX_N]>,
}

/// Scores `window` of `model` at the positions that are multiples of `every`.
///
/// Brier-n at a position is `2 P(y) - sum_x P(x)^2` over the next n tokens. `P(y)` is exact,
/// from the model's own probabilities. The sum is exact for n = 1; for longer n-grams it is
/// the expectation of `P(x_1..x_{n-1}) sum_v P(v | x_1..x_{n-1})^2` over drawn prefixes,
/// averaged over `draws` of them. Same expectation as counting coincidences of drawn pairs
/// (CALM, section 4.2, Eq. 12 to 15), with less variance, because the probability of a coincidence stands in
/// for the coincidence.
///
/// # Panics
/// With fewer than one draw, or a stride of 0.
pub fn score_window<M: NextToken>(
    model: &M,
    window: &[u32],
    every: usize,
    draws: usize,
    random: &mut dyn Draws,
    device: &Device,
) -> WindowScores {
    assert!(draws > 0, "at least one drawn prefix is needed");
    assert!(every > 0, "a stride of 0 was asked for");
    if window.len() < 2 {
        return WindowScores::default();
    }
    let seen = window.len() - 1;
    let mut cache = model.whole_cache(seen, device);
    let tokens = chunk_tensor(&window[..seen], 1, 1, device);
    let hidden = model.step(tokens, &[0], &mut cache).squeeze_dim::<2>(0);

    // In slices, so that the scores of a long window never stand in memory at once.
    let rows = (SCORES_AT_ONCE / model.vocab_size()).max(1);
    // The logarithm first: the probability itself may be too small for the number format.
    let mut log_likelihood = Vec::with_capacity(seen);
    let mut collision = Vec::with_capacity(seen);
    for first in (0..seen).step_by(rows) {
        let count = rows.min(seen - first);
        let log_p = log_softmax(model.logits(hidden.clone().narrow(0, first, count)), 1);
        let next = token_column(&window[first + 1..first + 1 + count], device);
        log_likelihood.extend(read(log_p.clone().gather(1, next)));
        collision.extend(read((log_p * 2.0).exp().sum_dim(1)));
    }

    let last = window.len().saturating_sub(MAX_N);
    let positions: Vec<usize> = (1..=last).filter(|p| p % every == 0).collect();
    // All multiples of the stride from the first on.
    let first = positions.first().map_or(0, |p| p / every);
    let per_position = draws * (model.vocab_size() + model.branch_scores(window.len()));
    let block = (SCORES_AT_ONCE / per_position).max(1);
    // Branches of one call begin at the same place of a chunk.
    let phase = |&p: &usize| p % model.alignment();
    let mut by_phase = positions.clone();
    by_phase.sort_by_key(phase);
    let mut brier = vec![[0.0; MAX_N]; positions.len()];
    for positions in by_phase
        .chunk_by(|a, b| phase(a) == phase(b))
        .flat_map(|alike| alike.chunks(block))
    {
        let pairs = collisions(model, &hidden, positions, &cache, draws, random, device);
        for (&p, longer) in positions.iter().zip(pairs) {
            let mut hit = 0.0;
            brier[p / every - first] = std::array::from_fn(|i| {
                hit += log_likelihood[p - 1 + i];
                2.0 * hit.exp()
                    - if i == 0 {
                        collision[p - 1]
                    } else {
                        longer[i - 1]
                    }
            });
        }
    }
    WindowScores {
        surprisal: log_likelihood.iter().map(|log_p| -log_p).collect(),
        positions,
        brier,
    }
}

/// Estimates of `sum_x P(x_1..x_n)^2` for n = 2..4 at each of `positions`.
fn collisions<M: NextToken>(
    model: &M,
    hidden: &Tensor<2>,
    positions: &[usize],
    cache: &M::Cache,
    draws: usize,
    random: &mut dyn Draws,
    device: &Device,
) -> Vec<[f64; MAX_N - 1]> {
    // One query for every position and draw, draws of a position side by side.
    let prefix: Vec<usize> = positions
        .iter()
        .flat_map(|&p| std::iter::repeat_n(p, draws))
        .collect();
    let sources: Vec<u32> = prefix.iter().map(|&p| p as u32 - 1).collect();
    let rows = token_column(&sources, device).squeeze_dim::<1>(1);
    let mut p = softmax(model.logits(hidden.clone().select(0, rows)), 1);
    let mut weight = vec![1.0f64; prefix.len()];
    let mut branches = M::Branches::default();
    let mut sums = vec![[0.0; MAX_N - 1]; positions.len()];
    for n in 0..MAX_N - 1 {
        let uniform = random.uniform(prefix.len(), device).unsqueeze_dim(1);
        let token = draw(p.clone(), uniform);
        let chance = read(p.gather(1, token.clone()));
        let state = model.branch(token.squeeze_dim(1), &prefix, cache, &mut branches);
        p = softmax(model.logits(state), 1);
        let collision = read(p.clone().square().sum_dim(1));
        for (i, sum) in sums.iter_mut().enumerate() {
            for q in i * draws..(i + 1) * draws {
                weight[q] *= chance[q];
                sum[n] += weight[q] * collision[q] / draws as f64;
            }
        }
    }
    sums
}

/// One token a row by inverting the cumulative distribution.
///
/// # Shapes
/// - p: `[rows, V]`
/// - uniform: `[rows, 1]`
/// - output: `[rows, 1]`
fn draw(p: Tensor<2>, uniform: Tensor<2>) -> Tensor<2, Int> {
    let [rows, vocabulary] = p.dims();
    let cumulative = p.cumsum(1);
    let total = cumulative.clone().narrow(1, vocabulary - 1, 1);
    let passed = cumulative.lower_equal((total * uniform).expand([rows, vocabulary]));
    passed.int().sum_dim(1).clamp(0, vocabulary as i64 - 1)
}

/// Token ids as a column `[n, 1]`.
fn token_column(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(ids, [tokens.len(), 1]), device)
}

fn read(column: Tensor<2>) -> Vec<f64> {
    column.into_data().iter::<f64>().collect()
}

/// Probabilities and attention scores that a scoring makes at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;
