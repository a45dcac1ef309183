//! Activations against the plain version.

use burn::tensor::{Tensor, activation};
use calm_kernels::{reference, silu, silu_add, silu_gate, silu_gate_packed};

use crate::{compare, numbers};

#[test]
fn silu_alone() {
    for n in [0, 1, 31, 1000, 50_000] {
        compare!(
            n,
            [x: 1 = numbers([n], 1)],
            |x: Tensor<1>| silu(x * 5.0),
            |x: Tensor<1>| activation::silu(x * 5.0)
        );
    }
}

#[test]
fn behind_a_shared_sum() {
    for [n, rows, d] in [[1, 1, 1], [8, 5, 7], [3, 300, 65], [8, 100, 256]] {
        compare!(
            [n, rows, d],
            [x: 3 = numbers([n, rows, d], 1), shared: 2 = numbers([rows, d], 2)],
            silu_add,
            reference::silu_add
        );
    }
}

#[test]
fn as_a_gate() {
    for [rows, d] in [[1, 1], [7, 13], [600, 100]] {
        compare!(
            [rows, d],
            [gate: 2 = numbers([rows, d], 1), up: 2 = numbers([rows, d], 2)],
            silu_gate,
            reference::silu_gate
        );
        compare!(
            [rows, d],
            [both: 3 = numbers([1, rows, 2 * d], 3)],
            silu_gate_packed,
            reference::silu_gate_packed
        );
    }
}
