//! The search for the largest product against sums in f64.

use burn::tensor::{Tensor, TensorData};
use calm_kernels::{ArgmaxTable, normals, reference};

use crate::device;

/// The first of the largest products, row by row.
fn expected(x: &[f32], table: &[f32], d: usize) -> Vec<i64> {
    let product = |x: &[f32], w: &[f32]| -> f64 {
        let terms = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
        terms.sum()
    };
    x.chunks_exact(d)
        .map(|x| {
            let mut best = (0, f64::NEG_INFINITY);
            for (i, w) in table.chunks_exact(d).enumerate() {
                let score = product(x, w);
                if score > best.1 {
                    best = (i as i64, score);
                }
            }
            best.0
        })
        .collect()
}

fn found(x: &[f32], table: &[f32], d: usize) -> Vec<i64> {
    let tensor = |numbers: &[f32]| -> Tensor<2> {
        let data = TensorData::new(numbers.to_vec(), [numbers.len() / d, d]);
        Tensor::from_data(data, &device())
    };
    let found = ArgmaxTable::new(tensor(table)).search(tensor(x));
    assert_eq!(found.dims(), [x.len() / d]);
    found.into_data().iter::<i64>().collect()
}

#[track_caller]
fn check(what: &str, x: &[f32], table: &[f32], d: usize) {
    assert_eq!(found(x, table, d), expected(x, table, d), "{what}");
}

#[test]
fn any_shape() {
    for vocab in [1, 15, 16, 17, 31, 32, 33, 500, 4000] {
        for d in [1, 3, 4, 5, 64, 131] {
            for rows in [1, 4, 12, 13, 500] {
                let (x, table) = (normals(1, rows * d), normals(2, vocab * d));
                check(&format!("{rows} rows, {vocab} x {d}"), &x, &table, d);
            }
        }
    }
}

#[test]
fn any_size_of_numbers() {
    let d = 40;
    for sizes in [
        [1e-30, 1e-3],
        [1e-38, 1.0],
        [1e-42, 1e10],
        [1e18, 1e18],
        [0.0, 1.0],
        [1.0, 0.0],
    ] {
        let scaled = |seed, n, by: f32| -> Vec<f32> {
            normals(seed, n * d).into_iter().map(|x| x * by).collect()
        };
        let (x, table) = (scaled(1, 30, sizes[0]), scaled(2, 300, sizes[1]));
        check(&format!("{sizes:?}"), &x, &table, d);
    }
}

/// Rounding hides everything but the outliers, so nothing can be ruled out.
#[test]
fn outliers() {
    let d = 48;
    let (mut x, mut table) = (normals(1, 40 * d), normals(2, 700 * d));
    for row in x.chunks_exact_mut(d) {
        row[5] = 1e4;
    }
    for (i, row) in table.chunks_exact_mut(d).enumerate() {
        row[5] = if i % 2 == 0 { 1e-6 } else { 0.0 };
        row[7] = 300.0;
    }
    check("outliers", &x, &table, d);
}

#[test]
fn of_equals_the_first() {
    let d = 20;
    let x = normals(1, 50 * d);
    let one = normals(2, 90 * d);
    let table = [one.clone(), one.clone(), one].concat();
    check("three times the same table", &x, &table, d);
    assert!(found(&x, &table, d).iter().all(|&i| i < 90));
}

#[test]
fn a_row_of_nan_leaves_the_others_alone() {
    let d = 24;
    let (mut x, table) = (normals(1, 30 * d), normals(2, 400 * d));
    let clean = expected(&x, &table, d);
    x[7 * d + 3] = f32::NAN;
    x[9 * d] = f32::INFINITY;
    let found = found(&x, &table, d);
    for (i, (found, clean)) in found.into_iter().zip(clean).enumerate() {
        assert!(
            found < 400 && (i == 7 || i == 9 || found == clean),
            "row {i}"
        );
    }
}

/// A table that is not finite cannot be rounded; the scores are made then.
#[test]
fn an_infinite_entry_wins() {
    let d = 24;
    let (x, mut table) = (vec![1.0; d], normals(2, 50 * d));
    table[33 * d] = f32::INFINITY;
    assert_eq!(found(&x, &table, d), [33]);
}

#[test]
fn no_rows_and_the_plain_version() {
    let d = 10;
    assert_eq!(found(&[], &normals(2, 50 * d), d), [0i64; 0]);
    let (x, table) = (normals(1, 20 * d), normals(2, 50 * d));
    let tensor = |numbers: &[f32], rows| {
        Tensor::<2>::from_data(TensorData::new(numbers.to_vec(), [rows, d]), &device())
    };
    let plain = reference::argmax(tensor(&x, 20), tensor(&table, 50));
    let plain: Vec<i64> = plain.into_data().iter::<i64>().collect();
    assert_eq!(plain, expected(&x, &table, d));
}
