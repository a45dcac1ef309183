//! Rotary positions against the plain version.

use burn::tensor::Tensor;
use calm_kernels::{reference, rope};

use crate::{compare, numbers};

#[test]
fn rotations() {
    for [batch, positions, heads, half] in [[1, 1, 1, 1], [2, 5, 3, 4], [3, 100, 8, 16]] {
        let angles = |x: &Tensor<3>| {
            let angles = Tensor::<2>::from_data(numbers([positions, half], 5), &x.device());
            (angles.clone().cos(), angles.sin())
        };
        compare!(
            [batch, positions, heads, half],
            [x: 3 = numbers([batch, positions, heads * 2 * half], 1)],
            |x: Tensor<3>| {
                let (cos, sin) = angles(&x);
                rope(x, cos, sin)
            },
            |x: Tensor<3>| {
                let (cos, sin) = angles(&x);
                reference::rope(x, cos, sin)
            }
        );
    }
}
