//! Attention within a band and to a memory against the plain version.

use burn::tensor::{Tensor, TensorData};
use calm_kernels::{Band, causal_attention, local_attention, reference};

use crate::{compare, device, leaf, numbers};

/// Positions, heads, key/value heads, width: below, at and above the tiles' edges.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 2],
    [3, 2, 1, 4],
    [31, 2, 2, 8],
    [33, 4, 2, 8],
    [128, 2, 1, 8],
    [129, 1, 1, 16],
    [300, 6, 3, 10],
    [530, 1, 1, 32],
];

/// Windows and chunks, every pair of neighbours a shape's.
const BANDS: [[usize; 2]; 8] = [
    [1, 1],
    [3, 2],
    [8, 4],
    [32, 8],
    [100, 4],
    [128, 4],
    [270, 2],
    [1000, 4],
];

/// How far from a shape's place in [`BANDS`] its bands lie: one of each shape's on GPUs, where every
/// shape of a product may be a kernel to compile.
const TRIED: &[usize] = if cfg!(any(feature = "vulkan", feature = "webgpu")) {
    &[2]
} else {
    &[0, 1, 2, 5]
};

fn band([window, chunk]: [usize; 2]) -> Band {
    Band { window, chunk }
}

/// Kernel and plain version of two sequences, whose memory has so many rows.
fn agree(shape: [usize; 4], sizes: [usize; 2], memories: Option<usize>, size: f32) {
    let [positions, heads, kv_heads, width] = shape;
    let (d, kv, band) = (heads * width, kv_heads * width, band(sizes));
    let scaled = |columns, rows, seed| {
        let data = numbers([2, rows, columns], seed);
        let values: Vec<f32> = data.iter::<f32>().map(|x| size * x).collect();
        TensorData::new(values, [2, rows, columns])
    };
    let [q, k, v] = [d, kv, kv].map(|columns| scaled(columns, positions, columns as u64));
    let case = (shape, sizes, memories);
    match memories {
        None => compare!(
            case,
            [q: 3 = q, k: 3 = k, v: 3 = v],
            |q, k, v| local_attention(q, k, v, None, heads, kv_heads, band),
            |q, k, v| reference::local_attention(q, k, v, None, heads, kv_heads, band)
        ),
        Some(memories) => compare!(
            case,
            [
                q: 3 = q,
                k: 3 = k,
                v: 3 = v,
                mk: 3 = scaled(kv, memories, 4),
                mv: 3 = scaled(kv, memories, 5),
            ],
            |q, k, v, mk, mv| local_attention(q, k, v, Some((mk, mv)), heads, kv_heads, band),
            |q, k, v, mk, mv| {
                reference::local_attention(q, k, v, Some((mk, mv)), heads, kv_heads, band)
            }
        ),
    }
}

#[test]
fn bands() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for j in TRIED {
            let sizes = BANDS[(i + j) % BANDS.len()];
            // The gradient of a lone key's weight is zero: small numbers round less.
            let size = if sizes[0] == 1 { 0.3 } else { 1.0 };
            agree(shape, sizes, None, size);
            // All chunks, and fewer than could be seen.
            let all = shape[0] / sizes[1];
            for memories in [all, all / 2] {
                if memories > 0 {
                    agree(shape, sizes, Some(memories), 1.0);
                }
            }
        }
    }
}

/// Scores in the hundreds: the running maximum keeps the exponentials finite.
#[test]
fn large_scores() {
    for sizes in [[8, 4], [200, 2]] {
        agree([270, 1, 1, 8], sizes, Some(67), 20.0);
    }
}

#[test]
fn a_wide_band_is_causal_attention() {
    let [q, k, v] = [1, 2, 3].map(|seed| {
        let data = numbers([2, 150, 16], seed);
        Tensor::<3>::from_data(data, &device())
    });
    let whole = causal_attention(q.clone(), k.clone(), v.clone(), 2, 2);
    for window in [150, usize::MAX] {
        let context = local_attention(
            q.clone(),
            k.clone(),
            v.clone(),
            None,
            2,
            2,
            band([window, 4]),
        );
        assert_eq!(context.into_data(), whole.clone().into_data());
    }
}

/// What a position can't see has no influence on its row, not on a bit of it.
#[test]
fn hidden_keys_leave_a_row_as_it_is() {
    const POSITIONS: usize = 75;
    for sizes in [[3, 4], [8, 4], [32, 2], [60, 8]] {
        let band = band(sizes);
        let rows = |n: usize, seed| {
            let data = numbers([1, n, 8], seed);
            data.iter::<f32>().collect::<Vec<f32>>()
        };
        let memories = POSITIONS / band.chunk;
        let [q, k, v] = [1, 2, 3].map(|seed| rows(POSITIONS, seed));
        let memory = [4, 5].map(|seed| rows(memories, seed));
        // The contexts where keys and values for which `hidden` holds are others.
        let contexts = |hidden_token: &dyn Fn(usize) -> bool,
                        hidden_chunk: &dyn Fn(usize) -> bool| {
            let tensor = |rows: &[f32], hidden: &dyn Fn(usize) -> bool| {
                let values: Vec<f32> = rows
                    .iter()
                    .enumerate()
                    .map(|(i, x)| if hidden(i / 8) { 30.0 - 5.0 * x } else { *x })
                    .collect();
                let n = values.len() / 8;
                Tensor::<3>::from_data(TensorData::new(values, [1, n, 8]), &device())
            };
            let context = local_attention(
                tensor(&q, &|_| false),
                tensor(&k, hidden_token),
                tensor(&v, hidden_token),
                Some((
                    tensor(&memory[0], hidden_chunk),
                    tensor(&memory[1], hidden_chunk),
                )),
                2,
                2,
                band,
            );
            context.into_data().iter::<f32>().collect::<Vec<f32>>()
        };
        let before = contexts(&|_| false, &|_| false);
        for t in [0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 74] {
            let seen = band.first_token(t)..t + 1;
            let after = contexts(&|token| !seen.contains(&token), &|chunk| {
                chunk >= band.memories(t)
            });
            let row = t * 8..t * 8 + 8;
            assert_eq!(
                after[row.clone()],
                before[row.clone()],
                "{band:?}, position {t}"
            );
            // And what it sees has one.
            let after = contexts(&|token| token == t, &|_| false);
            assert_ne!(after[row.clone()], before[row], "{band:?}, position {t}");
        }
    }
}

/// Chunks longer than the text so far have left no memory yet.
#[test]
fn a_memory_without_rows() {
    let x = || leaf::<3>(&numbers([2, 5, 8], 1));
    let none = || Tensor::<3>::zeros([2, 0, 8], &x().device());
    let (q, k, v) = (x(), x(), x());
    let sizes = band([3, 8]);
    let with = local_attention(
        q.clone(),
        k.clone(),
        v.clone(),
        Some((none(), none())),
        2,
        2,
        sizes,
    );
    let without = local_attention(q.clone(), k, v, None, 2, 2, sizes);
    assert_eq!(with.clone().into_data(), without.into_data());
    let grads = with.sum().backward();
    assert_eq!(q.grad(&grads).expect("a gradient").dims(), [2, 5, 8]);
}

#[test]
fn no_position() {
    let rows = |n, columns| leaf::<3>(&numbers([2, n, columns], 1));
    let (q, k, mk) = (rows(0, 8), rows(0, 4), rows(3, 4));
    let memory = Some((mk.clone(), rows(3, 4)));
    let context = local_attention(q.clone(), k.clone(), rows(0, 4), memory, 2, 1, band([3, 2]));
    assert_eq!(context.dims(), [2, 0, 8]);
    let grads = context.sum().backward();
    assert_eq!(q.grad(&grads).expect("a gradient").dims(), [2, 0, 8]);
    let of_memory = mk.grad(&grads).expect("a gradient").into_data();
    assert!(of_memory.iter::<f32>().all(|x| x == 0.0), "{of_memory}");
}
