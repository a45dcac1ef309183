//! Causal attention against the plain version.

use calm_kernels::{causal_attention, reference};

use crate::{compare, numbers};

/// Batch, positions, heads, key/value heads, width: below, at and above the tiles' edges.
const SHAPES: [[usize; 5]; 7] = [
    [1, 1, 1, 1, 2],
    [2, 3, 2, 1, 4],
    [1, 128, 2, 2, 8],
    [1, 129, 4, 2, 8],
    [2, 257, 2, 1, 16],
    [1, 300, 6, 3, 10],
    [1, 600, 1, 1, 32],
];

#[test]
fn causal() {
    for [batch, positions, heads, kv_heads, width] in SHAPES {
        let (d, kv) = (heads * width, kv_heads * width);
        compare!(
            [batch, positions, heads, kv_heads, width],
            [
                q: 3 = numbers([batch, positions, d], 1),
                k: 3 = numbers([batch, positions, kv], 2),
                v: 3 = numbers([batch, positions, kv], 3),
            ],
            |q, k, v| causal_attention(q, k, v, heads, kv_heads),
            |q, k, v| reference::causal_attention(q, k, v, heads, kv_heads)
        );
    }
}

/// Scores in the hundreds: the running maximum keeps the exponentials finite.
#[test]
fn large_scores() {
    let large = |seed| {
        let data = numbers([1, 270, 8], seed);
        let values: Vec<f32> = data.iter::<f32>().map(|x| 20.0 * x).collect();
        burn::tensor::TensorData::new(values, [1, 270, 8])
    };
    compare!(
        "large",
        [q: 3 = large(1), k: 3 = large(2), v: 3 = numbers([1, 270, 8], 3)],
        |q, k, v| causal_attention(q, k, v, 1, 1),
        |q, k, v| reference::causal_attention(q, k, v, 1, 1)
    );
}
