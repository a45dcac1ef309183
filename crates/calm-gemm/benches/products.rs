//! Products of the sizes of a small model's training and decoding beside the `gemm` crate's, and the
//! search beside making the scores: `cargo bench -p calm-gemm`, with `CALM_ISA=avx2` for less than
//! the machine has.

use calm_gemm::{
    Argmax, Int8, Mat, MatMut, MatmulPrecision, Right, Update, bf16, gemm, round_to_int8,
};
use divan::{Bencher, counter::ItemsCount};

/// Inside the pool, as the calm program works.
fn main() {
    rayon::scope(|_| divan::main());
}

/// Rows, depth and columns: a layer of 4,096 positions, its weight's gradient, an output layer, and
/// one position of decoding.
const PRODUCTS: [[usize; 3]; 4] = [
    [4096, 256, 688],
    [256, 4096, 688],
    [1024, 256, 8192],
    [1, 256, 8192],
];

fn numbers(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (i * 7919 % 4001) as f32 / 2000.0 - 1.0)
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    F32,
    Bf16,
    GemmCrate,
}

#[divan::bench(args = PRODUCTS, consts = [0, 1, 2], sample_count = 20)]
fn product<const WHOSE: usize>(bencher: Bencher, [m, k, n]: [usize; 3]) {
    let whose = [Whose::F32, Whose::Bf16, Whose::GemmCrate][WHOSE];
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0; m * n]);
    // Floating-point operations, so that "items/s" is FLOP/s.
    let bencher = bencher.counter(ItemsCount::new(2 * m * k * n));
    bencher.bench_local(|| match whose {
        Whose::F32 | Whose::Bf16 => {
            let precision = match whose {
                Whose::Bf16 => MatmulPrecision::Bf16,
                _ => MatmulPrecision::F32,
            };
            let target = MatMut::new(&mut c, m, n);
            gemm(
                Mat::new(&a, m, k),
                Mat::new(&b, k, n),
                target,
                Update::Overwrite,
                precision,
            );
        }
        // SAFETY: the slices have the sizes said.
        Whose::GemmCrate => unsafe {
            let threads = ::gemm::Parallelism::Rayon(0);
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            let (k_, n_) = (k as isize, n as isize);
            ::gemm::gemm(
                m, n, k, c, 1, n_, false, a, 1, k_, b, 1, n_, 0.0, 1.0, false, false, false,
                threads,
            );
        },
    });
}

/// What a weight of a few rows' product is kept in. Items are its numbers; it is larger than most
/// caches, as the weights of a decoding model are.
#[divan::bench(args = [1, 4, 200], consts = [0, 1, 2, 3, 4, 5], sample_count = 20)]
fn kept<const HOW: usize>(bencher: Bencher, rows: usize) {
    let [depth, cols] = [1536, 16384];
    let (x, weight) = (numbers(rows * depth), numbers(depth * cols));
    let short: Vec<bf16> = weight.iter().map(|&x| bf16::from_f32(x)).collect();
    let (whole, scales) = round_to_int8(&weight, [depth, cols], [192, 1]);
    let (table, table_scales) = round_to_int8(&weight, [cols, depth], [1, 192]);
    let bencher = bencher.counter(ItemsCount::new(depth * cols));
    let x = Mat::new(&x, rows, depth);
    match HOW {
        0 => by(bencher, x, Mat::new(&weight, depth, cols)),
        1 => by(bencher, x, Mat::new(&short, depth, cols)),
        2 => by(
            bencher,
            x,
            Int8::new(&whole, &scales, [depth, cols], [192, 1]),
        ),
        3 => by(bencher, x, Mat::new(&weight, cols, depth).t()),
        4 => by(bencher, x, Mat::new(&short, cols, depth).t()),
        _ => by(
            bencher,
            x,
            Int8::new(&table, &table_scales, [cols, depth], [1, 192]).t(),
        ),
    }
}

fn by<B: Right>(bencher: Bencher, x: Mat<'_>, weight: B) {
    let (rows, cols) = (x.rows(), weight.dims()[1]);
    let mut out = vec![0.0; rows * cols];
    bencher.bench_local(|| {
        let target = MatMut::new(&mut out, rows, cols);
        gemm(x, weight, target, Update::Overwrite, MatmulPrecision::F32);
    });
}

/// Rows searched at once in a vocabulary of 8,192.
#[divan::bench(args = [1, 16, 256], sample_count = 20)]
fn argmax(bencher: Bencher, rows: usize) {
    let [vocab, d] = [8192, 256];
    let (x, table) = (numbers(rows * d), numbers(vocab * d));
    let table = Mat::new(&table, vocab, d);
    let prepared = Argmax::new(table);
    bencher.bench_local(|| prepared.search(&x, table));
}

#[divan::bench(args = [1, 16, 256], sample_count = 20)]
fn scores(bencher: Bencher, rows: usize) {
    let [vocab, d] = [8192, 256];
    let (x, table) = (numbers(rows * d), numbers(vocab * d));
    let mut scores = vec![0.0; rows * vocab];
    bencher.bench_local(|| {
        gemm(
            Mat::new(&x, rows, d),
            Mat::new(&table, vocab, d).t(),
            MatMut::new(&mut scores, rows, vocab),
            Update::Overwrite,
            MatmulPrecision::F32,
        );
    });
}
