//! The norms against the plain version.

use calm_kernels::{layer_norm, reference, rms_norm};

use crate::{compare, numbers};

const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 5], [0, 8], [257, 33], [64, 512], [1000, 48]];

#[test]
fn rms() {
    for [rows, d] in SHAPES {
        compare!(
            [rows, d],
            [x: 2 = numbers([rows, d], 1), w: 1 = numbers([d], 2)],
            |x, w| rms_norm(x, w, 1e-6),
            |x, w| reference::rms_norm(x, w, 1e-6)
        );
    }
}

#[test]
fn layer() {
    for [rows, d] in SHAPES {
        // One column has no variance: its gradient is rounding.
        if d == 1 {
            continue;
        }
        compare!(
            [rows, d],
            [x: 3 = numbers([1, rows, d], 1), w: 1 = numbers([d], 2), b: 1 = numbers([d], 3)],
            |x, w, b| layer_norm(x, w, b, 1e-6),
            |x, w, b| reference::layer_norm(x, w, b, 1e-6)
        );
    }
}
