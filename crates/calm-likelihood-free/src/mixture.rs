//! A likelihood after all: draws of a head, read by a decoder that knows probabilities.
//!
//! Not the paper's, whose models have no likelihood. A frozen decoder is a distribution over chunks,
//! `p(x | z) = prod_k softmax(logits_k(z))[x_k]`, and a head draws z, so together they are the mixture
//! `P(x) = E_z p(x | z)`: that of a model which draws its tokens from the decoder instead of taking
//! the most probable ones.

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
