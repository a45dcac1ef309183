//! Embeddings with those of the tokens before.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use calm_nn::{Init, NearTokens, RandomStream, keep_rows};
use proptest::prelude::*;

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = RandomStream::new(seed).normal(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn near(n: usize, d: usize, device: &Device) -> NearTokens {
    let mut near = NearTokens::new(n, d, &Init::new(0, device)).expect("near tokens");
    near.weights = Param::from_tensor(random([n, d], 9, device));
    near
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn none_are_none_and_fresh_ones_add_nothing() {
    let device = Device::flex();
    let init = Init::new(0, &device);
    assert!(NearTokens::new(0, 4, &init).is_none());
    let fresh = NearTokens::new(3, 4, &init).expect("near tokens");
    let x = random([2, 5, 4], 1, &device);
    assert_eq!(values(fresh.forward(x.clone(), 0)), values(x));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Read in two parts, the second with the embeddings before it, a text is what it is as a whole;
    /// and rows of zeros before a text are as if nothing stood there.
    #[test]
    fn parts_equal_the_whole(n in 1usize..5, length in 2usize..9, cut in 1usize..8, fillers in 0usize..4) {
        let device = Device::flex();
        let cut = cut.min(length - 1);
        let near = near(n, 3, &device);
        let x = random([2, length, 3], 2, &device);
        let whole = near.forward(x.clone(), 0);

        let before = n.min(cut);
        let second = x.clone().narrow(1, cut - before, before + length - cut);
        let second = near.forward(second, before);
        close(&values(second), &values(whole.clone().narrow(1, cut, length - cut)));

        let total = fillers + length;
        let filled = Tensor::cat(vec![random([2, fillers + 1, 3], 3, &device), x], 1);
        let filled = filled.narrow(1, 1, total);
        let own = (0..2).flat_map(|_| (0..total).map(|t| t >= fillers));
        let filled = near.forward(keep_rows(filled, own), 0);
        close(&values(filled.narrow(1, fillers, length)), &values(whole));
    }
}

/// Of the sum of squares of all outputs, against central differences.
#[test]
fn gradients_are_those_of_differences() {
    let plain = Device::flex();
    let device = Device::flex().autodiff();
    let (n, shape) = (2, [1, 4, 3]);
    let loss = |near: &NearTokens, x: Tensor<3>| {
        let y = near.forward(x, 0);
        (y.clone() * y).sum()
    };
    let trained = near(n, 3, &device);
    let x = random(shape, 4, &device).require_grad();
    let gradients = loss(&trained, x.clone()).backward();
    let of_x = values(x.grad(&gradients).expect("a gradient of x"));
    let of_weights = values(
        trained
            .weights
            .val()
            .grad(&gradients)
            .expect("of the weights"),
    );

    let step = 1e-2f32;
    let moved = |which: usize, i: usize, by: f32| {
        let mut near = near(n, 3, &plain);
        let mut x = random(shape, 4, &plain);
        let mut data = if which == 0 {
            values(x.clone())
        } else {
            values(near.weights.val())
        };
        data[i] += by;
        if which == 0 {
            x = Tensor::from_data(TensorData::new(data, shape), &plain);
        } else {
            near.weights =
                Param::from_tensor(Tensor::from_data(TensorData::new(data, [n, 3]), &plain));
        }
        values(loss(&near, x))[0]
    };
    for (which, gradient) in [of_x, of_weights].iter().enumerate() {
        for (i, found) in gradient.iter().enumerate() {
            // Exact for a quadratic loss but for rounding.
            let expected = (moved(which, i, step) - moved(which, i, -step)) / (2.0 * step);
            assert!(
                (found - expected).abs() < 2e-2 * expected.abs().max(1.0),
                "{found} and {expected}"
            );
        }
    }
}
