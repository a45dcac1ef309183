//! Isotonic regression: measurements of what can only rise.

/// The sequence that never falls nearest to `values` = (value, weight) in weighted squares, by
/// pooling adjacent violators.
pub fn isotonic(values: &[(f64, f64)]) -> Vec<f64> {
    // (mean, weight, count) of every block.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for &(value, weight) in values {
        let mut block = (value, weight, 1);
        while let Some(&(mean, before, count)) = blocks.last().filter(|last| last.0 > block.0) {
            let weight = before + block.1;
            let mean = (mean * before + block.0 * block.1) / weight;
            block = (mean, weight, count + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    blocks
        .into_iter()
        .flat_map(|(mean, _, count)| std::iter::repeat_n(mean, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooled_adjacent_violators_are_the_weighted_mean() {
        let weighted = |values: &[f64]| values.iter().map(|&v| (v, 1.0)).collect::<Vec<_>>();
        assert_eq!(isotonic(&weighted(&[1.0, 2.0, 3.0])), [1.0, 2.0, 3.0]);
        assert_eq!(isotonic(&weighted(&[3.0, 2.0, 1.0])), [2.0; 3]);
        assert_eq!(
            isotonic(&weighted(&[1.0, 4.0, 2.0, 5.0])),
            [1.0, 3.0, 3.0, 5.0]
        );
        assert_eq!(isotonic(&[(4.0, 3.0), (0.0, 1.0)]), [3.0; 2]);
        assert_eq!(isotonic(&[]), Vec::<f64>::new());
    }
}
