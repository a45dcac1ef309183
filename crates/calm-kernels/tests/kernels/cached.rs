//! Attention to a cache against the plain version.

use burn::tensor::Tensor;
use calm_kernels::{cached_attention, reference};

use crate::{assert_close, device, numbers};

/// New positions, held, capacity, heads, key/value heads, width.
const SHAPES: [[usize; 6]; 6] = [
    [1, 1, 1, 1, 1, 2],
    [1, 9, 16, 4, 2, 8],
    [3, 50, 64, 8, 8, 32],
    [8, 700, 1024, 6, 3, 10],
    [9, 20, 20, 2, 1, 4],
    [4, 4, 10, 2, 2, 6],
];

#[test]
fn caches_of_unequal_texts() {
    for [new, held, capacity, heads, kv_heads, width] in SHAPES {
        for fillers in [[0, 0], [held - new, 0]] {
            let q = Tensor::<3>::from_data(numbers([2, new, heads * width], 1), &device());
            let cache = |seed| {
                let shape = [2, kv_heads, capacity, width];
                Tensor::<4>::from_data(numbers(shape, seed), &device())
            };
            let (k, v) = (cache(2), cache(3));
            let slow = reference::cached_attention(q.clone(), k.clone(), v.clone(), held, &fillers);
            let fast = cached_attention(q, k, v, held, &fillers);
            let case = format!("{:?}", [new, held, capacity, heads, kv_heads, width]);
            assert_close(&case, fast.into_data(), slow.into_data());
        }
    }
}
