//! Rotary positions against the plain version.

use burn::tensor::Tensor;
use calm_kernels::{reference, rope};

use crate::{compare, device, numbers};

#[test]
fn rotations() {
    for [batch, positions, heads, half] in [[1, 1, 1, 1], [2, 5, 3, 4], [3, 100, 8, 16]] {
        let angles = Tensor::<2>::from_data(numbers([positions, half], 5), &device());
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let on = |x: &Tensor<3>, y: &Tensor<2>| {
            if x.is_autodiff() {
                Tensor::from_inner(y.clone())
            } else {
                y.clone()
            }
        };
        compare!(
            [batch, positions, heads, half],
            [x: 3 = numbers([batch, positions, heads * 2 * half], 1)],
            |x: Tensor<3>| rope(x.clone(), on(&x, &cos), on(&x, &sin)),
            |x: Tensor<3>| reference::rope(x.clone(), on(&x, &cos), on(&x, &sin))
        );
    }
}
