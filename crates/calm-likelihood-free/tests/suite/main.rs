//! Golden values and properties of the likelihood-free parts.

mod brier;
mod brier_golden;
mod energy_head;
mod energy_score;
mod enumerable;
mod exact;
mod growing;
mod heads;
mod mixture;
mod sampler;

use calm_nn::RandomStream;

/// Pearson's statistic of observed counts against probabilities.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> f64 {
    assert_eq!(counts.len(), probabilities.len());
    let n = counts.iter().sum::<usize>() as f64;
    let cells = counts.iter().zip(probabilities);
    cells
        .map(|(&count, &p)| {
            if p == 0.0 {
                assert_eq!(count, 0, "an impossible outcome came");
                return 0.0;
            }
            (count as f64 - n * p).powi(2) / (n * p)
        })
        .sum()
}

/// An index drawn with the given probabilities.
fn draw(probabilities: &[f64], random: &mut RandomStream) -> usize {
    let mut rest = random.unit();
    for (i, p) in probabilities.iter().enumerate() {
        rest -= p;
        if rest < 0.0 {
            return i;
        }
    }
    probabilities.len() - 1
}
