//! The energy score against the plain version.

use burn::tensor::{Tensor, TensorData};
use calm_kernels::{KeyedDraws, gaussian_energy, normals, reference};

use crate::{compare, device, leaf, numbers};

/// Samples, positions, width, draws.
const SHAPES: [[usize; 4]; 4] = [[2, 1, 4, 1], [3, 7, 12, 5], [8, 33, 128, 20], [2, 5, 6, 3]];

fn both((attraction, repulsion): (Tensor<1>, Tensor<1>)) -> Tensor<2> {
    Tensor::stack(vec![attraction, repulsion], 0)
}

fn independent(count: usize, key: u64) -> KeyedDraws {
    KeyedDraws {
        count,
        key,
        antithetic: false,
    }
}

#[test]
fn values_and_gradients() {
    for (alpha, antithetic) in [
        (1.0, false),
        (0.7, false),
        (1.6, false),
        (1.0, true),
        (0.7, true),
    ] {
        for [n, positions, l, count] in SHAPES {
            let draws = KeyedDraws {
                antithetic,
                ..independent(count, 11)
            };
            let on = |like: &Tensor<3>, seed| {
                Tensor::<2>::from_data(numbers([positions, l], seed), &like.device()) * 0.5
            };
            compare!(
                ([n, positions, l, count], alpha, antithetic),
                [x: 3 = numbers([n, positions, l], 1)],
                |x: Tensor<3>| both(gaussian_energy(
                    x.clone(),
                    on(&x, 2),
                    on(&x, 3),
                    draws,
                    alpha
                )),
                |x: Tensor<3>| both(reference::gaussian_energy(
                    x.clone(),
                    on(&x, 2),
                    on(&x, 3),
                    draws,
                    alpha
                ))
            );
        }
    }
}

/// At the start of training all samples are equal: no distance, no gradient between them.
#[test]
fn samples_that_coincide_do_not_repel() {
    let x = leaf::<3>(&TensorData::new(vec![0.5f32; 3 * 2 * 8], [3, 2, 8]));
    let zeros = || Tensor::<2>::zeros([2, 8], &x.device());
    let (_, repulsion) = gaussian_energy(x.clone(), zeros(), zeros(), independent(4, 1), 1.0);
    let grads = repulsion.clone().sum().backward();
    crate::assert_close(
        "repulsion",
        repulsion.into_data(),
        TensorData::from([0.0f32, 0.0]),
    );
    let grad = x.grad(&grads).unwrap();
    assert_eq!(grad.abs().max().into_scalar::<f32>(), 0.0);
}

/// A sample on a draw has distance 0 to it; the gradient stays finite.
#[test]
fn a_sample_on_a_draw_is_no_division_by_zero() {
    let eps = normals(5, 8);
    let samples = [eps.clone(), vec![0.0; 8]].concat();
    let x = leaf::<3>(&TensorData::new(samples, [2, 1, 8]));
    let zeros = || Tensor::<2>::zeros([1, 8], &x.device());
    let (attraction, _) = gaussian_energy(x.clone(), zeros(), zeros(), independent(1, 5), 1.0);
    let grads = attraction.clone().sum().backward();
    let norm = eps.iter().map(|e| e * e).sum::<f32>().sqrt();
    crate::assert_close(
        "attraction",
        attraction.into_data(),
        TensorData::from([norm / 2.0]),
    );
    let grad: Vec<f32> = x.grad(&grads).unwrap().into_data().iter::<f32>().collect();
    assert!(grad.iter().all(|g| g.is_finite()));
    // A GPU's draw is off by its rounding, and then the gradient is that of any other distance.
    let on_it = cfg!(not(any(feature = "vulkan", feature = "webgpu")));
    let largest = if on_it { 0.0 } else { 0.5 };
    let norm = grad[..8].iter().map(|g| g * g).sum::<f32>().sqrt();
    assert!(norm < largest + 1e-6, "{norm}");
}

/// The mean distance of a point at the origin to standard normal draws in l dimensions is
/// `sqrt(2) Gamma((l + 1) / 2) / Gamma(l / 2)`, 2.7386 - 0.0007 at l = 8: within five standard
/// errors of 40,000 draws (variance below 0.5), error rate below 1e-6.
#[test]
fn draws_are_those_of_the_gaussian() {
    let x = Tensor::<3>::zeros([2, 1, 8], &device());
    let zeros = || Tensor::<2>::zeros([1, 8], &device());
    let (attraction, _) = gaussian_energy(x, zeros(), zeros(), independent(40_000, 3), 1.0);
    let mean: f32 = attraction.into_scalar();
    // Gamma(4.5) / Gamma(4) = 11.631728 / 6.
    let expected = 2f32.sqrt() * 11.631_728 / 6.0;
    assert!(
        (mean - expected).abs() < 5.0 * (0.5f32 / 40_000.0).sqrt(),
        "{mean}"
    );
}

/// Samples on a draw and on its mirror image: each has distance 0 to one of the two antithetic draws
/// and `2 ||eps||` to the other, the odd third is the first of the next pair.
#[test]
fn every_second_antithetic_draw_mirrors_the_one_before() {
    let eps = normals(5, 16);
    let norm = |x: &[f32]| x.iter().map(|e| e * e).sum::<f32>().sqrt();
    let mirrored: Vec<f32> = eps[..8].iter().map(|e| -e).collect();
    let samples = TensorData::new([&eps[..8], &mirrored].concat(), [2, 1, 8]);
    let x = Tensor::<3>::from_data(samples, &device());
    let zeros = || Tensor::<2>::zeros([1, 8], &device());
    for (count, odd) in [(2, false), (3, true)] {
        let draws = KeyedDraws {
            count,
            key: 5,
            antithetic: true,
        };
        let (attraction, _) = gaussian_energy(x.clone(), zeros(), zeros(), draws, 1.0);
        let mut expected = 4.0 * norm(&eps[..8]);
        if odd {
            for sign in [1.0, -1.0] {
                let off: Vec<f32> = (0..8).map(|j| sign * eps[j] - eps[8 + j]).collect();
                expected += norm(&off);
            }
        }
        let expected = expected / (2 * count) as f32;
        let found: f32 = attraction.into_scalar();
        assert!(
            (found - expected).abs() < 1e-4,
            "{count}: {found} of {expected}"
        );
    }
}
