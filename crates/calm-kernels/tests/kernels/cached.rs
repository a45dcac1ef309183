//! Attention to a cache against the plain version.

use burn::tensor::Tensor;
use calm_kernels::{cached_attention, reference};

use crate::{assert_close, device, numbers};

/// New positions, held, capacity, heads, key/value heads, width.
const SHAPES: [[usize; 6]; 10] = [
    [1, 1, 1, 1, 1, 2],
    [1, 9, 16, 4, 2, 8],
    [3, 50, 64, 8, 8, 32],
    [8, 700, 1024, 6, 3, 10],
    [9, 20, 20, 2, 1, 4],
    [4, 4, 10, 2, 2, 6],
    // More than one tile of queries, of keys, or of both.
    [150, 700, 1024, 6, 3, 10],
    [300, 300, 300, 2, 2, 32],
    // Tiles of keys that the first queries of a tile do not reach.
    [150, 300, 320, 2, 1, 8],
    [128, 600, 640, 2, 2, 10],
];

/// Attention to a cache of two texts: the kernel's and the plain version's, new and held positions
/// as `shape` has them.
fn both(shape: [usize; 6], fillers: [usize; 2]) -> [Tensor<3>; 2] {
    let [new, held, capacity, heads, kv_heads, width] = shape;
    let q = Tensor::<3>::from_data(numbers([2, new, heads * width], 1), &device());
    let cache = |seed| {
        let shape = [2, kv_heads, capacity, width];
        Tensor::<4>::from_data(numbers(shape, seed), &device())
    };
    let (k, v) = (cache(2), cache(3));
    let slow = reference::cached_attention(q.clone(), k.clone(), v.clone(), held, &fillers);
    [cached_attention(q, k, v, held, &fillers), slow]
}

#[test]
fn caches_of_unequal_texts() {
    for shape in SHAPES {
        let [new, held, ..] = shape;
        for fillers in [[0, 0], [held - new, 0]] {
            let [fast, slow] = both(shape, fillers);
            assert_close(&format!("{shape:?}"), fast.into_data(), slow.into_data());
        }
    }
}

#[test]
fn queries_that_are_fillers_leave_the_others_as_they_are() {
    for shape in SHAPES {
        let [new, held, ..] = shape;
        let hidden = new / 2;
        let texts = both(shape, [held - new + hidden, 0]);
        for (text, hidden) in [hidden, 0].into_iter().enumerate() {
            let [fast, slow] = texts.each_ref().map(|context| {
                let text = context.clone().narrow(0, text, 1);
                text.narrow(1, hidden, new - hidden).into_data()
            });
            assert_close(&format!("{shape:?}, text {text}"), fast, slow);
        }
    }
}

#[test]
fn a_text_of_fillers_alone_is_zeros() {
    for fillers in [4, 5] {
        let texts = both([2, 4, 10, 2, 2, 6], [fillers, 0]);
        let [fast, slow] = texts
            .each_ref()
            .map(|context| context.clone().narrow(0, 1, 1));
        assert_close("the other text", fast.into_data(), slow.into_data());
        let fillers = texts[0].clone().narrow(0, 0, 1).into_data();
        assert!(fillers.iter::<f32>().all(|x| x == 0.0), "{fillers}");
    }
}

#[test]
fn no_new_position() {
    let q = Tensor::<3>::from_data(numbers([2, 0, 4], 1), &device());
    let cache = Tensor::<4>::from_data(numbers([2, 1, 4, 2], 2), &device());
    let context = cached_attention(q, cache.clone(), cache, 3, &[0, 0]);
    assert_eq!(context.dims(), [2, 0, 4]);
}
