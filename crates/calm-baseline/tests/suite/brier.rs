//! The Brier estimator: positions, exactness, and that its expectation is that of coincidences.

use burn::tensor::Device;
use calm_baseline::score_window;
use calm_nn::HostDraws;

use crate::{enumerable, ids, row, scores, small};

#[test]
fn positions_are_the_multiples_with_four_tokens_left() {
    let device = Device::flex();
    let (_, model) = small(1, &device);
    let window = ids(13, 13, 1);
    let positions = |every| {
        let mut draws = HostDraws::new(1);
        let scores = score_window(&model, &window, every, 1, &mut draws, &device);
        assert_eq!(scores.positions.len(), scores.brier.len());
        assert_eq!(scores.surprisal.len(), 12);
        scores.positions
    };
    assert_eq!(positions(1), (1..=9).collect::<Vec<_>>());
    assert_eq!(positions(4), [4, 8]);
    assert!(positions(10).is_empty());
    let mut draws = HostDraws::new(1);
    let short = score_window(&model, &window[..1], 1, 1, &mut draws, &device);
    assert!(short.positions.is_empty() && short.surprisal.is_empty());
}

#[test]
fn surprisal_is_the_loss() {
    let device = Device::flex();
    let (_, model) = small(2, &device);
    let window = ids(16, 13, 2);
    let scores = score_window(&model, &window, 1, 1, &mut HostDraws::new(1), &device);
    let mean = scores.surprisal.iter().sum::<f64>() / 15.0;
    let loss = f64::from(model.loss(row(&window, &device)).into_scalar::<f32>());
    approx::assert_relative_eq!(mean, loss, max_relative = 1e-5);
}

#[test]
fn brier_1_is_exact_at_every_position_whatever_the_draws() {
    let device = Device::flex();
    let (_, model) = small(3, &device);
    let window = ids(12, 13, 3);
    let found = score_window(&model, &window, 1, 1, &mut HostDraws::new(5), &device);
    for (p, brier) in found.positions.iter().zip(&found.brier) {
        let logits = scores(&model, &window[..*p], &device).pop().unwrap();
        let exp: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
        let total: f64 = exp.iter().sum();
        let square: f64 = exp.iter().map(|e| (e / total).powi(2)).sum();
        let expected = 2.0 * exp[window[*p] as usize] / total - square;
        approx::assert_abs_diff_eq!(brier[0], expected, epsilon = 1e-5);
    }
}

/// The estimate with many drawn prefixes against the enumeration of all pairs, at every position
/// of a window. A drawn collision probability lies in [0, 1], so 4,000 draws have a standard
/// error below 0.008; five of it are passed by chance less than once in a million.
#[test]
fn brier_2_is_that_of_the_enumeration_at_every_position() {
    let device = Device::flex();
    let model = enumerable(4, &device);
    let window = ids(8, 5, 4);
    let found = score_window(&model, &window, 1, 4000, &mut HostDraws::new(6), &device);
    let next = |text: &[u32]| -> Vec<f64> {
        let logits = scores(&model, text, &device).pop().unwrap();
        let exp: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
        let total: f64 = exp.iter().sum();
        exp.iter().map(|e| e / total).collect()
    };
    for (&p, brier) in found.positions.iter().zip(&found.brier) {
        let first = next(&window[..p]);
        let mut collision = 0.0;
        let mut hit = 0.0;
        for (a, pa) in first.iter().enumerate() {
            let second = next(&[&window[..p], &[a as u32]].concat());
            collision += pa * pa * second.iter().map(|q| q * q).sum::<f64>();
            if a == window[p] as usize {
                hit = pa * second[window[p + 1] as usize];
            }
        }
        approx::assert_abs_diff_eq!(brier[1], 2.0 * hit - collision, epsilon = 0.04);
    }
}

/// Positions are scored in blocks that fit in memory; the block must not show in what is exact,
/// and a stride only picks positions.
#[test]
fn a_stride_picks_positions() {
    let device = Device::flex();
    let (_, model) = small(5, &device);
    let window = ids(16, 13, 5);
    let all = score_window(&model, &window, 1, 2, &mut HostDraws::new(7), &device);
    let some = score_window(&model, &window, 4, 2, &mut HostDraws::new(7), &device);
    for (p, brier) in some.positions.iter().zip(&some.brier) {
        let at = all.positions.iter().position(|q| q == p).unwrap();
        approx::assert_abs_diff_eq!(all.brier[at][0], brier[0], epsilon = 1e-6);
    }
    assert_eq!(all.surprisal.len(), some.surprisal.len());
}
