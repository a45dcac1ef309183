//! No rows: nothing to compute, nothing to panic about, and gradients of the right shapes.
//! (Burn's own reshape reads a 0 as "as before", so the plain versions can't be asked.)

use burn::tensor::{Int, Tensor};
use calm_kernels::*;

use crate::{leaf, numbers};

fn rows(d: usize) -> Tensor<2> {
    leaf(&numbers([0, d], 1))
}

fn wide(n: usize, d: usize) -> Tensor<3> {
    leaf(&numbers([n, 0, d], 1))
}

#[track_caller]
fn check<const D: usize, const E: usize>(x: Tensor<D>, y: Tensor<E>, dims: [usize; E]) {
    assert_eq!(y.dims(), dims);
    let grads = y.sum().backward();
    assert_eq!(x.grad(&grads).expect("a gradient").dims(), x.dims());
}

#[test]
fn all_of_them() {
    let w = || leaf::<2>(&numbers([4, 6], 2));
    let v = || leaf::<1>(&numbers([4], 3));
    let x = rows(4);
    check(x.clone(), linear(x, w(), None), [0, 6]);
    let x = rows(4);
    check(
        x.clone(),
        linear(x, w(), Some(leaf(&numbers([6], 4)))),
        [0, 6],
    );
    let x = rows(4);
    check(x.clone(), rms_norm(x, v(), 1e-6), [0, 4]);
    let x = rows(4);
    check(x.clone(), layer_norm(x, v(), v(), 1e-6), [0, 4]);
    let x = rows(4);
    check(x.clone(), silu(x), [0, 4]);
    let x = rows(4);
    check(x.clone(), silu_gate(x, rows(4)), [0, 4]);
    let x = rows(4);
    check(x.clone(), silu_gate_packed(x), [0, 2]);
    let x = wide(2, 4);
    check(x.clone(), silu_add(x, rows(4)), [2, 0, 4]);
    let x = wide(2, 4);
    check(
        x.clone(),
        causal_attention(x, wide(2, 2), wide(2, 2), 2, 1),
        [2, 0, 4],
    );
    let x = wide(3, 4);
    let draws = KeyedDraws {
        count: 5,
        key: 1,
        antithetic: false,
    };
    let (attraction, _) = gaussian_energy(x, rows(4), rows(4), draws, 1.0);
    assert_eq!(attraction.dims(), [0]);
}

#[test]
fn a_cross_entropy_of_nothing_is_no_number() {
    let targets = Tensor::<1, Int>::from_ints([0; 0], &crate::device().autodiff());
    let w = leaf::<2>(&numbers([4, 6], 2));
    let loss = cross_entropy(rows(4), Projection::Output(w), targets);
    assert!(loss.into_scalar::<f32>().is_nan());
}
