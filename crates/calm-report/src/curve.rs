//! What is done to the points of a curve before it is drawn: smoothing and thinning.

/// Exponential moving average, corrected for the missing past: `m_t / (1 - weight^t)` with
/// `m_t = weight * m_(t-1) + (1 - weight) * y_t`. A value that is not finite yields NaN at its
/// place and leaves the average as it was.
pub(crate) fn ema(values: &[f64], weight: f64) -> Vec<f64> {
    let (mut average, mut mass) = (0.0, 0.0);
    let mut next = |&value: &f64| {
        if !value.is_finite() {
            return f64::NAN;
        }
        average = weight * average + (1.0 - weight) * value;
        mass = weight * mass + (1.0 - weight);
        average / mass
    };
    values.iter().map(&mut next).collect()
}

/// Thins a placed curve where several points share a pixel column: of each column the first, the
/// lowest, the highest and the last stay, in their order, so the drawn line covers the same pixels.
pub(crate) fn decimate(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
        let mut indices = vec![0, lowest, highest, column.len() - 1];
        indices.sort_unstable();
        indices.dedup();
        kept.extend(indices.into_iter().map(|i| column[i]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_starts_at_the_first_value() {
        let averages = ema(&[4.0, 4.0, f64::NAN, 8.0], 0.5);
        assert_eq!(&averages[..2], [4.0, 4.0]);
        assert!(averages[2].is_nan());
        // (0.5^2 * 4 + ... ) with the weights 1/8, 1/4, 1/2 over their sum 7/8.
        approx::assert_relative_eq!(
            averages[3],
            (4.0 / 8.0 + 4.0 / 4.0 + 8.0 / 2.0) / (7.0 / 8.0)
        );
    }

    #[test]
    fn thinning_keeps_extremes_and_ends_and_sparse_curves() {
        let sparse = [(0.0, 1.0), (5.0, 2.0), (9.5, 1.0)];
        assert_eq!(decimate(&sparse), sparse);
        let dense: Vec<_> = (0..1000)
            .map(|i| (f64::from(i) / 1000.0, f64::from(i * 7 % 1000)))
            .collect();
        assert_eq!(decimate(&dense), [dense[0], dense[857], dense[999]]);
        assert_eq!(decimate(&[]), []);
    }
}
