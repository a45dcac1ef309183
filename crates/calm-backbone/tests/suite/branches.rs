//! Alternative continuations of one cached sequence.

use burn::tensor::{Device, Int, Tensor};
use calm_backbone::Backbone;
use calm_nn::StepCache;
use calm_nn::{CachedModel, TextBranches};

use crate::{distance, lively, small, tokens};

/// Continuing after `prefix` chunks of `text` with `chunks` by reading the whole: `[1, d]`.
fn continued(
    model: &Backbone,
    text: &Tensor<3, Int>,
    prefix: usize,
    chunks: Tensor<3, Int>,
) -> Tensor<2> {
    let steps = chunks.dims()[1];
    let whole = match prefix {
        0 => chunks,
        _ => Tensor::cat(vec![text.clone().narrow(1, 0, prefix), chunks], 1),
    };
    model
        .forward(whole)
        .narrow(1, prefix + steps - 1, 1)
        .squeeze_dim(0)
}

#[test]
fn a_branch_equals_the_sequence_that_it_continues() {
    let device = Device::flex();
    for kv_heads in [1, 2, 4] {
        let config = small(kv_heads);
        let model = lively(&config, &device);
        let text = tokens(&config, 1, 6, 1);
        let mut cache = model.cache(1, 9, &device);
        model.step(text.clone(), &[0], &mut cache);
        // A start before any text, two branches after the same chunk, and one after all of it.
        let prefix = [3, 0, 1, 6, 3];
        let x = tokens(&config, prefix.len(), 3, 2);
        let mut branches = TextBranches::default();
        for step in 0..3 {
            let chunk = x.clone().narrow(1, step, 1).squeeze_dim::<2>(1);
            let hidden = model.branch(chunk, &prefix, &cache, &mut branches);
            for (q, &p) in prefix.iter().enumerate() {
                let taken = x.clone().narrow(0, q, 1).narrow(1, 0, step + 1);
                let expected = continued(&model, &text, p, taken);
                let off = distance(hidden.clone().narrow(0, q, 1), expected);
                assert!(
                    off < 1e-5,
                    "kv {kv_heads}, prefix {p}, step {step}: {off:.1e}"
                );
            }
        }
        assert_eq!(cache.len(), 6, "branching leaves the cache as it is");
    }
}

#[test]
fn selected_branches_go_on_as_if_the_others_had_never_been() {
    let device = Device::flex();
    let config = small(2);
    let model = lively(&config, &device);
    let text = tokens(&config, 1, 4, 3);
    let mut cache = model.cache(1, 4, &device);
    model.step(text.clone(), &[0], &mut cache);
    let prefix = [1, 4, 2, 3];
    let x = tokens(&config, 4, 3, 4);
    let chunk = |q: &[usize], step: usize| {
        let rows = q
            .iter()
            .map(|&q| x.clone().narrow(0, q, 1).narrow(1, step, 1));
        Tensor::cat(rows.collect(), 0).squeeze_dim::<2>(1)
    };
    let mut branches = TextBranches::default();
    model.branch(chunk(&[0, 1, 2, 3], 0), &prefix, &cache, &mut branches);
    // Dropped, reordered, then one of them doubled.
    let mut kept = vec![0, 1, 2, 3];
    for (step, rows) in [(1, vec![3, 0, 2]), (2, vec![1, 1, 0])] {
        branches.select(&rows, &device);
        kept = rows.iter().map(|&r| kept[r]).collect();
        let prefix: Vec<usize> = kept.iter().map(|&q| prefix[q]).collect();
        let hidden = model.branch(chunk(&kept, step), &prefix, &cache, &mut branches);
        for (row, (&q, &p)) in kept.iter().zip(&prefix).enumerate() {
            let taken = x.clone().narrow(0, q, 1).narrow(1, 0, step + 1);
            let off = distance(
                hidden.clone().narrow(0, row, 1),
                continued(&model, &text, p, taken),
            );
            assert!(off < 1e-5, "branch {q} at step {step}: {off:.1e}");
        }
    }
}

#[test]
fn a_branch_does_not_see_another() {
    let device = Device::flex();
    let config = small(2);
    let model = lively(&config, &device);
    let mut cache = model.cache(1, 3, &device);
    model.step(tokens(&config, 1, 3, 5), &[0], &mut cache);
    let run = |neighbour: i64| {
        let mut branches = TextBranches::default();
        let mut last = None;
        for token in [4, 9] {
            let chunks = [[token; 3], [neighbour; 3]];
            let chunks = Tensor::<2, Int>::from_ints(chunks, &device);
            last = Some(
                model
                    .branch(chunks, &[2, 3], &cache, &mut branches)
                    .narrow(0, 0, 1),
            );
        }
        last.expect("two steps")
    };
    assert!(distance(run(1), run(20)) <= 1e-6);
}
