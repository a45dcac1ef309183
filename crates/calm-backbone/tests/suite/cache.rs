//! Causality, and that stepping with a cache is the same as reading the whole sequence.

use burn::tensor::{Device, Int, Tensor};
use calm_nn::CachedModel;
use calm_nn::StepCache;

use crate::{distance, lively, small, tokens};

#[test]
fn a_chunk_changes_no_earlier_hidden_state() {
    let device = Device::flex();
    let config = small(2);
    let model = lively(&config, &device);
    let before = tokens(&config, 1, 6, 1);
    let hidden = model.forward(before.clone());
    for changed in 0..6 {
        let other = (before.clone().narrow(1, changed, 1) + 1) % 23;
        let after = before
            .clone()
            .slice_assign([0..1, changed..changed + 1, 0..3], other);
        let moved = model.forward(after);
        let earlier = |h: &Tensor<3>| h.clone().narrow(1, 0, changed);
        if changed > 0 {
            assert!(
                distance(earlier(&hidden), earlier(&moved)) <= 1e-6,
                "chunk {changed}"
            );
        }
        for later in changed..6 {
            let row = |h: &Tensor<3>| h.clone().narrow(1, later, 1);
            assert!(
                distance(row(&hidden), row(&moved)) > 1e-4,
                "{later} must see {changed}"
            );
        }
    }
}

#[test]
fn the_order_of_chunks_matters() {
    let device = Device::flex();
    let config = small(4);
    let model = lively(&config, &device);
    let x = tokens(&config, 1, 3, 2);
    let at = |i| x.clone().narrow(1, i, 1);
    let swapped = Tensor::cat(vec![at(1), at(0), at(2)], 1);
    let last = |t| model.forward(t).narrow(1, 2, 1);
    assert!(distance(last(x.clone()), last(swapped)) > 1e-3);
}

#[test]
fn steps_with_a_cache_equal_the_whole_sequence() {
    let device = Device::flex();
    for kv_heads in [1, 2, 4] {
        let config = small(kv_heads);
        let model = lively(&config, &device);
        let x = tokens(&config, 2, 6, 3);
        let whole = model.forward(x.clone());
        for split in [
            vec![6],
            vec![1; 6],
            vec![3, 1, 1, 1],
            vec![2, 4],
            vec![1, 2, 3],
            vec![5, 1],
        ] {
            let mut cache = model.cache(2, 8, &device);
            let mut start = 0;
            let mut parts = Vec::new();
            for &new in &split {
                parts.push(model.step(x.clone().narrow(1, start, new), &[0, 0], &mut cache));
                start += new;
                assert_eq!((cache.len(), cache.room()), (start, 8 - start));
            }
            let off = distance(Tensor::cat(parts, 1), whole.clone());
            assert!(
                off < 1e-5,
                "kv_heads {kv_heads}, split {split:?}: {off:.1e}"
            );
        }
    }
}

/// Sequences of 5, 2 and 4 chunks in one batch of 5, filled up at the front, then two more steps.
#[test]
fn a_batch_with_fillers_equals_every_sequence_alone() {
    let device = Device::flex();
    let config = small(2);
    let model = lively(&config, &device);
    let lengths = [5, 2, 4];
    let fillers = lengths.map(|n| 5 - n);
    let sequences: Vec<Tensor<3, Int>> = lengths
        .iter()
        .enumerate()
        .map(|(i, n)| tokens(&config, 1, n + 2, 10 + i as u64))
        .collect();
    let batch = |filler: i64| {
        let rows = sequences.iter().zip(fillers).map(|(x, f)| {
            let front = Tensor::<3, Int>::full([1, f, 3], filler, &device);
            if f == 0 {
                x.clone()
            } else {
                Tensor::cat(vec![front, x.clone()], 1)
            }
        });
        Tensor::cat(rows.collect(), 0)
    };
    for filler in [0, 22] {
        let x = batch(filler);
        let mut cache = model.cache(3, 7, &device);
        let mut hidden = vec![model.step(x.clone().narrow(1, 0, 5), &fillers, &mut cache)];
        for i in 5..7 {
            hidden.push(model.step(x.clone().narrow(1, i, 1), &fillers, &mut cache));
        }
        let hidden = Tensor::cat(hidden, 1);
        for (row, (alone, f)) in sequences.iter().zip(fillers).enumerate() {
            let batched = hidden.clone().narrow(0, row, 1).narrow(1, f, 7 - f);
            let off = distance(batched, model.forward(alone.clone()));
            assert!(
                off < 1e-5,
                "sequence {row}, filler token {filler}: {off:.1e}"
            );
        }
    }
}

#[test]
fn a_cleared_cache_is_as_good_as_a_new_one() {
    let device = Device::flex();
    let config = small(2);
    let model = lively(&config, &device);
    let mut cache = model.cache(1, 4, &device);
    model.step(tokens(&config, 1, 4, 5), &[0], &mut cache);
    cache.clear();
    assert!(cache.is_empty());
    let x = tokens(&config, 1, 3, 6);
    let off = distance(model.step(x.clone(), &[0], &mut cache), model.forward(x));
    assert!(off < 1e-5, "{off:.1e}");
}

/// Sharing key/value heads is the same as giving every query head a copy.
#[test]
fn shared_key_value_heads_equal_copied_ones() {
    let device = Device::flex();
    for kv_heads in [1, 2] {
        let config = small(kv_heads);
        let shared = lively(&config, &device);
        let mut copied = small(4).init(&mut calm_nn::Init::new(1, &device));
        copied.compressor = shared.compressor.clone();
        copied.transformer.norm = shared.transformer.norm.clone();
        let repeat = |w: Tensor<2>| {
            let w = w
                .reshape([16, kv_heads, 1, 4])
                .expand([16, kv_heads, 4 / kv_heads, 4]);
            burn::module::Param::from_tensor(w.reshape([16, 16]))
        };
        for (to, from) in copied
            .transformer
            .layers
            .iter_mut()
            .zip(&shared.transformer.layers)
        {
            let (k, v) = (
                repeat(from.attention.k.weight.val()),
                repeat(from.attention.v.weight.val()),
            );
            to.mlp = from.mlp.clone();
            to.input_norm = from.input_norm.clone();
            to.post_attention_norm = from.post_attention_norm.clone();
            to.attention.q = from.attention.q.clone();
            to.attention.o = from.attention.o.clone();
            to.attention.k.weight = k;
            to.attention.v.weight = v;
        }
        let x = tokens(&config, 2, 5, 4);
        let off = distance(shared.forward(x.clone()), copied.forward(x));
        assert!(off < 1e-5, "{kv_heads} heads: {off:.1e}");
    }
}
