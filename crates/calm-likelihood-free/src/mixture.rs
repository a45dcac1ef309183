//! A likelihood after all: draws of a head, read by a decoder that knows probabilities.
//!
//! Not the paper's, whose models have no likelihood. A frozen decoder is a distribution over chunks,
//! `p(x | z) = prod_k softmax(logits_k(z))[x_k]`, and a head draws z, so together they are the mixture
//! `P(x) = E_z p(x | z)`: that of a model which draws its tokens from the decoder instead of taking
//! the most probable ones. Of draws already made, on the host, [`log_score`] and [`mixture_brier`]; to
//! train by, [`log_score_loss`] and [`brier_loss`].

use burn::tensor::Tensor;

/// Negative log-likelihood of a chunk, in nats, bounded from above by groups of `group` draws:
/// the mean over disjoint groups of `-ln((1/m) sum_n p(y | z_n))`.
///
/// Its expectation lies above `-ln P(y)` for every m, falls as m grows and tends to it (arXiv
/// 1509.00519, theorem 1, of importance weights that are all 1).
///
/// # Shapes
/// - log_likelihoods: `ln p(y | z_n)` of every draw
///
/// # Panics
/// Where there are fewer draws than one group takes, or `group` is 0.
pub fn log_score(log_likelihoods: &[f64], group: usize) -> f64 {
    let groups = log_likelihoods.chunks_exact(group);
    let count = groups.len() as f64;
    assert!(
        count > 0.0,
        "a group of {group} draws of {}",
        log_likelihoods.len()
    );
    -groups.map(log_mean_exp).sum::<f64>() / count
}

/// `ln((1/m) sum_i exp(x_i))`, without overflow; minus infinity where all are.
fn log_mean_exp(x: &[f64]) -> f64 {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    let sum: f64 = x.iter().map(|value| (value - largest).exp()).sum();
    largest + (sum / x.len() as f64).ln()
}

/// Brier scores of the prefixes of a chunk under the mixture, of 1, 2, .. K tokens:
/// `2/N sum_n prod_{k <= j} p_nk(y_k) - 1/(N(N-1)) sum_{n != m} prod_{k <= j} <p_nk, p_mk>`.
///
/// Unbiased for `2 P(y_1..j) - sum_x P(x_1..j)^2` as the count of equal draws is ([`brier_at`]), with
/// less variance: of every draw it takes the expectation over tokens.
///
/// # Shapes
/// - true_probabilities: `p_nk(y_k)`, a row of K for every draw
/// - overlaps: for every k the N rows of N inner products `<p_nk, p_mk>`, row-major
///
/// # Panics
/// With fewer than two draws, or where the shapes disagree.
///
/// [`brier_at`]: crate::brier_at
pub fn mixture_brier(true_probabilities: &[Vec<f64>], overlaps: &[Vec<f64>]) -> Vec<f64> {
    let n = true_probabilities.len();
    assert!(
        n >= 2,
        "the Brier estimate needs two draws or more, got {n}"
    );
    let (mut hits, mut meets) = (vec![1.0; n], vec![1.0; n * n]);
    overlaps
        .iter()
        .enumerate()
        .map(|(k, overlap)| {
            assert_eq!(overlap.len(), n * n, "overlaps of all pairs of draws");
            for (hit, row) in hits.iter_mut().zip(true_probabilities) {
                *hit *= row[k];
            }
            for (meet, overlap) in meets.iter_mut().zip(overlap) {
                *meet *= overlap;
            }
            let own: f64 = (0..n).map(|i| meets[i * n + i]).sum();
            let pairs = meets.iter().sum::<f64>() - own;
            2.0 * hits.iter().sum::<f64>() / n as f64 - pairs / (n * (n - 1)) as f64
        })
        .collect()
}

/// Log score of every position under the mixture of its N draws, `-ln((1/N) sum_n p(y | z_n))`.
///
/// To be minimised. In expectation it lies above `-ln P(y)`, the less the more draws ([`log_score`]), so
/// it is strictly proper in the limit alone; at N = 1 every draw is asked to be the whole distribution.
/// Where every draw has a log-likelihood of minus infinity it is no number.
///
/// # Shapes
/// - log_likelihoods: `ln p(y | z_n)`, `[positions, N]`
/// - output: `[positions]`
pub fn log_score_loss(log_likelihoods: Tensor<2>) -> Tensor<1> {
    let [positions, n] = log_likelihoods.dims();
    let largest = log_likelihoods.clone().detach().max_dim(1);
    let sum = (log_likelihoods - largest.clone()).exp().sum_dim(1);
    (sum.log() + largest - (n as f64).ln())
        .neg()
        .reshape([positions])
}

/// Brier loss of every prefix under the mixture of a position's N draws: the terms of
/// [`mixture_brier`], negated, to be minimised.
///
/// The estimate is unbiased at any N >= 2 and the Brier score proper, so no distribution over prefixes
/// has a lower expectation than the text's own; over whole chunks, K tokens, every other's is higher.
///
/// # Shapes
/// - hits: `p_nk(y_k)`, `[positions, N, K]`
/// - overlaps: `<p_nk, p_mk>`, `[positions, K, N, N]`
/// - output: `[positions, K]`, of the prefixes of 1, 2, .. K tokens
///
/// # Panics
/// With fewer than two draws, or where the shapes disagree.
pub fn brier_loss(hits: Tensor<3>, overlaps: Tensor<4>) -> Tensor<2> {
    let [positions, n, k] = hits.dims();
    assert!(n >= 2, "the Brier loss needs two draws or more, got {n}");
    assert_eq!(
        overlaps.dims(),
        [positions, k, n, n],
        "overlaps of all pairs"
    );
    let device = hits.device();
    // Two draws, not one twice.
    let mut meet = (Tensor::ones([n, n], &device) - Tensor::<2>::eye(n, &device))
        .reshape([1, n, n])
        .expand([positions, n, n]);
    let mut hit = Tensor::<2>::ones([positions, n], &device);
    let of_prefixes = (0..k)
        .map(|at| {
            hit = hit.clone() * hits.clone().narrow(2, at, 1).squeeze_dim(2);
            meet = meet.clone() * overlaps.clone().narrow(1, at, 1).squeeze_dim(1);
            let pairs = meet.clone().sum_dims(&[1, 2]).reshape([positions, 1]);
            pairs / (n * (n - 1)) as f64 - hit.clone().mean_dim(1) * 2.0
        })
        .collect();
    Tensor::cat(of_prefixes, 1)
}
