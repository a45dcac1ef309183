//! AdamW against the plain version.

use burn::tensor::Tensor;
use calm_kernels::{AdamW, sum_of_squares};

use crate::{assert_close, device, numbers};

#[test]
fn three_steps_agree_with_the_plain_version() {
    for n in [0, 1, 33, 40_000] {
        let tensor = |seed| Tensor::<1>::from_data(numbers([n], seed), &device());
        let zeros = || Tensor::<1>::zeros([n], &device());
        let mut fast = (tensor(1), zeros(), zeros());
        let mut slow = fast.clone();
        for time in 1..=3 {
            let step = AdamW {
                lr: 0.01,
                weight_decay: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                epsilon: 1e-8,
                time,
            };
            let gradient = tensor(10 + time as u64);
            fast = step.step(fast.0, gradient.clone(), fast.1, fast.2);
            slow = step.step_reference(slow.0, gradient, slow.1, slow.2);
        }
        for (what, a, b) in [
            ("parameter", &fast.0, &slow.0),
            ("first moment", &fast.1, &slow.1),
            ("second moment", &fast.2, &slow.2),
        ] {
            assert_close(what, a.to_data(), b.to_data());
        }
    }
}

#[test]
fn squares() {
    for n in [0, 1, 100, 100_000] {
        let x = Tensor::<1>::from_data(numbers([n], 1), &device());
        let expected = x.clone().square().sum().into_data();
        assert_close("sum", sum_of_squares(x).into_data(), expected);
    }
}
