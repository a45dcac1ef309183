//! BrierLM of a language model whose probabilities can be enumerated, by chunks of any length.
//!
//! Limits are five standard errors, so a correct estimate fails with probability below 1e-4 over all
//! tests here; seeds are fixed.

use calm_likelihood_free::{
    BrierAccumulator, BrierEstimate, DrawnPrefix, MAX_N, Rollout, Start, brier_at,
    brier_of_probabilities,
};
use calm_nn::{Draws, HostDraws, RandomStream};

use crate::draw;

const V: usize = 3;

/// Of the next token, by the last.
const NEXT: [[f64; V]; V] = [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]];

/// A Markov chain that draws K tokens at a time.
struct Chunked {
    chunk_size: usize,
}

fn next(last: u32, random: &mut RandomStream) -> u32 {
    draw(&NEXT[last as usize], random) as u32
}

impl Rollout for Chunked {
    /// Chunk by chunk, as long as a draw agrees with the target or with another draw.
    fn roll_out(&mut self, window: &[u32], draws: usize, random: &mut dyn Draws) -> Vec<Start> {
        let mut random = RandomStream::new(random.key().expect("draws with keys"));
        let starts = (self.chunk_size..=window.len() - MAX_N).step_by(self.chunk_size);
        starts
            .map(|at| {
                let target: [u32; MAX_N] = std::array::from_fn(|i| window[at + i]);
                let mut drawn: Vec<Vec<u32>> = vec![Vec::new(); draws];
                for known in (0..MAX_N).step_by(self.chunk_size) {
                    let counts = |own: &Vec<u32>| {
                        let others = drawn.iter().filter(|other| *other == own).count();
                        own.len() == known && (others > 1 || own[..] == target[..known])
                    };
                    let going: Vec<usize> = (0..draws).filter(|&d| counts(&drawn[d])).collect();
                    for d in going {
                        for _ in 0..self.chunk_size {
                            let last = drawn[d].last().copied().unwrap_or(window[at - 1]);
                            drawn[d].push(next(last, &mut random));
                        }
                    }
                }
                drawn.iter_mut().for_each(|d| d.truncate(MAX_N));
                Start {
                    target,
                    draws: drawn,
                }
            })
            .collect()
    }
}

/// `2 P(y) - sum_x P(x)^2` of the first n tokens, enumerated.
fn exact(last: u32, target: &[u32; MAX_N]) -> [f64; MAX_N] {
    std::array::from_fn(|i| {
        let of = |tokens: &[u32]| {
            let mut last = last;
            let each = tokens.iter().map(|&token| {
                let p = NEXT[last as usize][token as usize];
                last = token;
                p
            });
            each.product::<f64>()
        };
        let n = i as u32 + 1;
        let collisions: f64 = (0..V.pow(n))
            .map(|code| {
                let digit = |place: u32| (code / V.pow(place) % V) as u32;
                of(&(0..n).map(digit).collect::<Vec<u32>>()).powi(2)
            })
            .sum();
        2.0 * of(&target[..=i]) - collisions
    })
}

fn window(length: usize, random: &mut RandomStream) -> Vec<u32> {
    let mut window = vec![0];
    while window.len() < length {
        window.push(next(window[window.len() - 1], random));
    }
    window
}

/// Estimates less what is true, which are 0 within five standard errors.
fn unbiased(off: &BrierAccumulator) -> BrierEstimate {
    let found = off.estimate().unwrap();
    for n in 0..MAX_N {
        // Brier-1 of a model that knows its probabilities is exact.
        let within = found.brier[n].abs() <= (5.0 * found.brier_se[n]).max(1e-12);
        assert!(within, "Brier-{}: {found:?}", n + 1);
    }
    found
}

#[test]
fn brier_lm_is_unbiased_at_any_chunk_size() {
    for chunk_size in [1, 2, 3, 4, 8] {
        let mut model = Chunked { chunk_size };
        let mut random = RandomStream::new(chunk_size as u64);
        // What is estimated less what is true, start by start: the text's own chance drops out.
        let mut off = BrierAccumulator::default();
        for i in 0..1600 {
            let window = window(48, &mut random);
            let starts = model.roll_out(&window, 4, &mut HostDraws::new(i));
            let last = window.len() - MAX_N;
            assert_eq!(starts.len(), (last - chunk_size) / chunk_size + 1);
            off.add_window(starts.iter().enumerate().map(|(j, start)| {
                let at = (j + 1) * chunk_size;
                let (found, exact) = (brier_at(start), exact(window[at - 1], &start.target));
                std::array::from_fn(|n| found[n] - exact[n])
            }));
        }
        let found = unbiased(&off);
        for n in 0..MAX_N {
            // Errors that could hide a bias would make this no test.
            assert!(
                found.brier_se[n] < 6e-3,
                "K = {chunk_size}: {:?}",
                found.brier_se
            );
        }
    }
}

/// From the chain's own probabilities: exact for one token, unbiased for more, with less scatter than
/// from as many draws.
#[test]
fn estimates_from_probabilities_are_unbiased() {
    let mut random = RandomStream::new(5);
    let collision = |last: u32| NEXT[last as usize].iter().map(|p| p * p).sum::<f64>();
    let (mut off, mut counted) = (BrierAccumulator::default(), BrierAccumulator::default());
    for i in 0..3_000 {
        let window = window(12, &mut random);
        let last = window[3];
        let target: [u32; MAX_N] = std::array::from_fn(|n| window[4 + n]);
        let chance = |n: usize| NEXT[window[3 + n] as usize][target[n] as usize];
        let prefixes: Vec<DrawnPrefix> = (0..4)
            .map(|_| {
                let (mut at, mut chances) = (last, [0.0; MAX_N - 1]);
                let mut collisions = [collision(last); MAX_N];
                for n in 0..MAX_N - 1 {
                    let token = next(at, &mut random);
                    chances[n] = NEXT[at as usize][token as usize];
                    at = token;
                    collisions[n + 1] = collision(at);
                }
                DrawnPrefix {
                    chances,
                    collisions,
                }
            })
            .collect();
        let found = brier_of_probabilities(&std::array::from_fn(chance), &prefixes);
        let exact = exact(last, &target);
        approx::assert_abs_diff_eq!(found[0], exact[0], epsilon = 1e-12);
        off.add_window([std::array::from_fn(|n| found[n] - exact[n])]);
        let start = &Chunked { chunk_size: 4 }.roll_out(&window, 4, &mut HostDraws::new(i))[0];
        let estimate = brier_at(start);
        counted.add_window([std::array::from_fn(|n| estimate[n] - exact[n])]);
    }
    let (found, counted) = (unbiased(&off), unbiased(&counted));
    for n in 1..MAX_N {
        assert!(
            found.brier_se[n] < 0.5 * counted.brier_se[n],
            "{found:?}, {counted:?}"
        );
    }
}

/// Of 200 repetitions, 95 % intervals hold the true BrierLM in 170 or more. With a coverage of 0.92,
/// which percentiles of 40 windows may fall to, fewer come with probability 3e-4; the seed is fixed.
#[test]
fn bootstrap_intervals_hold_what_is_true() {
    let mut random = RandomStream::new(77);
    let (mut held, mut width) = (0, 0.0);
    // Expected over texts: under the model's own text, E[2 P(y) - sum P^2] = sum P^2.
    let mut true_brier = [0.0; MAX_N];
    let rounds = 40_000;
    let long = window(rounds + 8, &mut random);
    for at in 4..rounds {
        let target = std::array::from_fn(|i| long[at + i]);
        let value = exact(long[at - 1], &target);
        true_brier
            .iter_mut()
            .zip(value)
            .for_each(|(sum, x)| *sum += x);
    }
    let mean = true_brier.map(|sum| sum / (rounds - 4) as f64);
    let truth = 100.0 * mean.iter().product::<f64>().powf(0.25);
    for repetition in 0..200u64 {
        let mut scores = BrierAccumulator::default();
        for i in 0..40 {
            let window = window(28, &mut random);
            let mut draws = HostDraws::new(1000 * repetition + i);
            let starts = Chunked { chunk_size: 4 }.roll_out(&window, 6, &mut draws);
            scores.add_window(starts.iter().map(brier_at));
        }
        let [low, high] = scores.interval(0.95, 400, &mut random).unwrap();
        held += usize::from(low <= truth && truth <= high);
        width += (high - low) / 200.0;
    }
    assert!(held >= 170, "{held} of 200 hold {truth}");
    assert!(
        width < truth,
        "intervals of width {width} around {truth} say nothing"
    );
    assert_eq!(
        BrierAccumulator::default().interval(0.9, 10, &mut random),
        None
    );
}
