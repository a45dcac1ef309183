//! Weights of 8 bits against the plain version of what they stand for.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use calm_kernels::{
    ArgmaxTable, Depth, linear, linear_by_table, look_up, normals, reference, to_int8, wide,
};

use crate::numbers;

/// Which dimension is added up, its length and the other.
const SIZES: [(usize, usize); 5] = [(8, 1), (24, 7), (256, 40), (96, 300), (241 * 8, 5)];

fn near<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let size = expected.clone().abs().max().into_scalar::<f32>();
    let off = (found - expected).abs().max().into_scalar::<f32>();
    assert!(off <= 2e-6 * (1.0 + size), "{what}: {off} of {size}");
}

fn data(dims: [usize; 2], seed: u64) -> TensorData {
    TensorData::new(normals(seed, dims[0] * dims[1]), dims)
}

fn matrix(dims: [usize; 2], seed: u64) -> Tensor<2> {
    Tensor::from_data(data(dims, seed), &Device::flex())
}

fn rounded(dims: [usize; 2], seed: u64, depth: Depth) -> Tensor<2> {
    to_int8(data(dims, seed), depth, &Device::flex())
}

#[test]
fn products_are_those_of_the_rounded_weight() {
    for (depth, others) in SIZES {
        let weight = rounded([depth, others], 1, Depth::Rows);
        let table = rounded([others, depth], 2, Depth::Columns);
        for weight in [&weight, &table] {
            assert!(matches!(weight.dtype(), DType::QFloat(_)), "{depth}");
        }
        for rows in [0, 1, 5, 6, 70] {
            let x = matrix([rows, depth], 3);
            if rows == 0 {
                assert_eq!(linear(x, weight.clone(), None).dims(), [0, others]);
                continue;
            }
            let what = format!("{rows} rows, {depth} to {others}");
            let bias = matrix([1, others], 4).reshape([others]);
            let found = linear(x.clone(), weight.clone(), Some(bias.clone()));
            let expected = reference::linear(x.clone(), wide(weight.clone()), Some(bias));
            near(&what, found, expected);
            let found = linear_by_table(x.clone(), table.clone());
            let expected = x.clone().matmul(wide(table.clone()).transpose());
            near(&what, found, expected);
            // As a layer of more dimensions.
            let deep = linear(x.clone().unsqueeze::<3>(), weight.clone(), None);
            near(
                &what,
                deep,
                linear(x, weight.clone(), None).unsqueeze::<3>(),
            );
        }
    }
}

#[test]
fn rows_and_searches_are_those_of_the_rounded_table() {
    for (d, entries) in SIZES {
        let table = rounded([entries, d], 2, Depth::Columns);
        let last = entries as i32 - 1;
        let rows: Tensor<2, Int> = Tensor::from_ints([[0, last], [last, 0]], &Device::flex());
        let found = look_up(table.clone(), rows.clone());
        let expected = look_up(wide(table.clone()), rows);
        assert_eq!(found.into_data(), expected.into_data(), "{entries} of {d}");
        let x = matrix([30, d], 5);
        let expected = ArgmaxTable::new(wide(table.clone())).search(x.clone());
        let found = ArgmaxTable::new(table).search(x.clone());
        assert_eq!(found.into_data(), expected.into_data(), "{entries} of {d}");
        // The weight of an output layer of the same numbers.
        let output = rounded([d, entries], 6, Depth::Rows);
        let expected = ArgmaxTable::new(wide(output.clone()).transpose()).search(x.clone());
        let found = ArgmaxTable::of_output(output).search(x);
        assert_eq!(found.into_data(), expected.into_data(), "{entries} of {d}");
    }
}

#[test]
fn what_no_block_fills_stays_f32() {
    for depth in [1, 7, 0, 2 * 241] {
        assert_eq!(rounded([depth, 4], 1, Depth::Rows).dtype(), DType::F32);
        assert_eq!(rounded([4, depth], 1, Depth::Columns).dtype(), DType::F32);
    }
}

/// Strip by strip; what is kept in bf16 is rounded from there.
#[test]
fn large_matrices_and_bf16_are_rounded_alike() {
    let dims = [3000, 480];
    for depth in [Depth::Rows, Depth::Columns] {
        let exact = matrix(dims, 7).cast(DType::BF16).into_data();
        let wide_data = exact.clone().convert::<f32>();
        let found = wide(to_int8(exact, depth, &Device::flex())).into_data();
        let same = wide(to_int8(wide_data.clone(), depth, &Device::flex())).into_data();
        assert_eq!(found, same);
        let (found, exact): (Vec<f32>, Vec<f32>) =
            (found.iter().collect(), wide_data.iter().collect());
        // No number here is above 6, so half a step is below 6 / 254.
        let off = found.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 6.0 / 254.0);
        assert!(exact.iter().all(|x| x.abs() < 6.0));
    }
}

/// The gradient of x, which a kernel of its own does not give.
#[test]
fn inputs_have_gradients() {
    let weight = rounded([24, 10], 1, Depth::Rows);
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::from_data(numbers([5, 24], 3), &device).require_grad();
    let expected = wide(weight.clone()).sum_dim(1).transpose().expand([5, 24]);
    let gradients = linear(x.clone(), weight, None).sum().backward();
    near("gradient", x.grad(&gradients).unwrap(), expected);
}
