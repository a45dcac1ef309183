//! Attention to a band of cached tokens and to a cached memory, against the plain version and
//! against whole windows.

use burn::tensor::Tensor;
use calm_kernels::{
    Band, LocalKeys, cached_attention, cached_local_attention, local_attention, reference,
};

use crate::{assert_close, device, numbers};

/// New positions, position of the first row, held, heads, key/value heads, width.
const SHAPES: [[usize; 6]; 7] = [
    [1, 0, 1, 1, 1, 2],
    [1, 41, 9, 4, 2, 8],
    [3, 100, 60, 8, 8, 32],
    [7, 8, 40, 6, 3, 10],
    [40, 0, 40, 2, 1, 4],
    [140, 20, 400, 2, 2, 8],
    [1, 700, 300, 2, 2, 32],
];

fn cache(shape: [usize; 4], seed: u64) -> (Tensor<4>, Tensor<4>) {
    let one = |seed| Tensor::from_data(numbers(shape, seed), &device());
    (one(seed), one(seed + 1))
}

/// Buffers with more room than is filled.
fn keys(shape: [usize; 6], chunk: Option<usize>) -> (Tensor<3>, LocalKeys) {
    let [new, first, held, heads, kv_heads, width] = shape;
    let q = Tensor::from_data(numbers([2, new, heads * width], 1), &device());
    let tokens = cache([2, kv_heads, held + 3, width], 2);
    let memory = chunk.map(|chunk| cache([2, kv_heads, (first + held) / chunk + 2, width], 4));
    let keys = LocalKeys {
        tokens,
        first,
        held,
        memory,
    };
    (q, keys)
}

#[test]
fn caches_of_unequal_texts() {
    for shape in SHAPES {
        let [new, first, held, ..] = shape;
        for [window, chunk] in [[1, 1], [3, 2], [8, 4], [32, 8], [200, 4], [2000, 2]] {
            let band = Band { window, chunk };
            let start = first + held - new;
            if band.first_token(start) < first {
                continue;
            }
            for memory in [None, Some(chunk)] {
                let (q, keys) = keys(shape, memory);
                let most = start / chunk * chunk;
                for fillers in [[0, 0], [most, 0], [most.min(chunk), most]] {
                    let fast = cached_local_attention(q.clone(), &keys, &fillers, band);
                    let slow = reference::cached_local_attention(q.clone(), &keys, &fillers, band);
                    let case = format!("{shape:?}, {band:?}, {memory:?}, {fillers:?}");
                    assert_close(&case, fast.into_data(), slow.into_data());
                }
            }
        }
    }
}

#[test]
fn without_a_band_it_is_attention_to_a_cache() {
    let (q, keys) = keys([3, 0, 50, 4, 2, 8], None);
    let band = Band {
        window: 50,
        chunk: 4,
    };
    let (k, v) = keys.tokens.clone();
    for fillers in [[0, 0], [4, 0]] {
        let whole = cached_attention(q.clone(), k.clone(), v.clone(), 50, &fillers);
        let local = cached_local_attention(q.clone(), &keys, &fillers, band);
        assert_eq!(local.into_data(), whole.into_data());
    }
}

#[test]
fn rows_of_fillers_are_zeros() {
    let (q, keys) = keys([6, 2, 10, 2, 1, 4], Some(4));
    let band = Band {
        window: 3,
        chunk: 4,
    };
    let [fast, slow] = [cached_local_attention, reference::cached_local_attention]
        .map(|attend| attend(q.clone(), &keys, &[8, 12], band));
    let rows = |x: &Tensor<3>, b, from, n| {
        let x = x.clone().narrow(0, b, 1);
        x.narrow(1, from, n).into_data()
    };
    assert_close("the others", rows(&fast, 0, 2, 4), rows(&slow, 0, 2, 4));
    for fillers in [rows(&fast, 0, 0, 2), rows(&fast, 1, 0, 6)] {
        assert!(fillers.iter::<f32>().all(|x| x == 0.0), "{fillers}");
    }
}

#[test]
fn no_new_position() {
    let (q, keys) = keys([0, 3, 4, 2, 1, 4], Some(2));
    let band = Band {
        window: 3,
        chunk: 2,
    };
    let context = cached_local_attention(q, &keys, &[0, 0], band);
    assert_eq!(context.dims(), [2, 0, 8]);
}

#[test]
#[should_panic(expected = "token 3 is seen, 4 is the first that is held")]
fn a_window_that_is_held_no_more() {
    let (q, keys) = keys([1, 4, 2, 2, 1, 4], None);
    let band = Band {
        window: 3,
        chunk: 2,
    };
    cached_local_attention(q, &keys, &[0, 0], band);
}

/// A window as a whole, and in pieces over a buffer that holds no more tokens than are seen.
#[test]
fn pieces_make_the_window() {
    const POSITIONS: usize = 61;
    const HEADS: usize = 4;
    const KV: usize = 2;
    const WIDTH: usize = 8;
    let rows =
        |n, heads, seed| Tensor::<3>::from_data(numbers([2, n, heads * WIDTH], seed), &device());
    let buffer = |x: Tensor<3>| {
        let n = x.dims()[1];
        x.reshape([2, n, KV, WIDTH]).swap_dims(1, 2)
    };
    for [window, chunk] in [[1, 1], [3, 2], [8, 4], [32, 8], [100, 4]] {
        let band = Band { window, chunk };
        let (q, k, v) = (
            rows(POSITIONS, HEADS, 1),
            rows(POSITIONS, KV, 2),
            rows(POSITIONS, KV, 3),
        );
        let (mk, mv) = (
            rows(POSITIONS / chunk, KV, 4),
            rows(POSITIONS / chunk, KV, 5),
        );
        // With a filler chunk in front, whose tokens and memory are nobody's.
        for fillers in [0, chunk] {
            let own = |x: &Tensor<3>, from: usize| {
                let n = x.dims()[1];
                x.clone().narrow(1, from, n - from)
            };
            let hidden = fillers / chunk;
            let memory = (POSITIONS / chunk > hidden).then(|| (own(&mk, hidden), own(&mv, hidden)));
            let [tokens_q, tokens_k, tokens_v] = [&q, &k, &v].map(|x| own(x, fillers));
            let whole = local_attention(tokens_q, tokens_k, tokens_v, memory, HEADS, KV, band);
            for piece in [1, 3, 7] {
                let mut contexts = Vec::new();
                for start in (0..POSITIONS).step_by(piece) {
                    let end = POSITIONS.min(start + piece);
                    let first = band.first_token(start);
                    let tokens = |x: &Tensor<3>| buffer(x.clone().narrow(1, first, end - first));
                    let keys = LocalKeys {
                        tokens: (tokens(&k), tokens(&v)),
                        first,
                        held: end - first,
                        memory: Some((buffer(mk.clone()), buffer(mv.clone()))),
                    };
                    let q = q.clone().narrow(1, start, end - start);
                    contexts.push(cached_local_attention(q, &keys, &[fillers; 2], band));
                }
                let pieces = own(&Tensor::cat(contexts, 1), fillers);
                let case = format!("{band:?}, {fillers} fillers, pieces of {piece}");
                assert_close(&case, pieces.into_data(), whole.clone().into_data());
            }
        }
    }
}
