//! The key/value cache and the positions that are hidden from all others.

use burn::tensor::{Device, Tensor};
use calm_fixtures::values;
use calm_nn::StepCache;

use crate::{input, lively, small};

#[test]
fn a_cache_counts_what_it_holds_and_forgets_on_clear() {
    let device = Device::flex();
    let model = lively(&small(4, 2), &device);
    let mut cache = model.cache(1, 5, &device);
    assert_eq!((cache.len(), cache.room(), cache.is_empty()), (0, 5, true));
    let x = input(1, 3, 1, &device);
    let first = values(model.step(x.clone(), &[0], &mut cache));
    assert_eq!((cache.len(), cache.room(), cache.is_empty()), (3, 2, false));
    model.step(input(1, 2, 2, &device), &[0], &mut cache);
    assert_eq!((cache.len(), cache.room()), (5, 0));
    cache.clear();
    assert_eq!((cache.len(), cache.room(), cache.is_empty()), (0, 5, true));
    assert_eq!(
        values(model.step(x, &[0], &mut cache)),
        first,
        "bit-equal after clear"
    );
}

#[test]
#[should_panic(expected = "a cache of 2 positions was given 3")]
fn a_full_cache_says_so() {
    let device = Device::flex();
    let model = lively(&small(4, 2), &device);
    let mut cache = model.cache(1, 2, &device);
    model.step(input(1, 3, 1, &device), &[0], &mut cache);
}

#[test]
fn a_copied_cache_goes_its_own_way() {
    let device = Device::flex();
    let model = lively(&small(4, 2), &device);
    let mut cache = model.cache(1, 4, &device);
    model.step(input(1, 2, 1, &device), &[0], &mut cache);
    let mut copy = cache.clone();
    let next = input(1, 1, 2, &device);
    let expected = values(model.step(next.clone(), &[0], &mut cache));
    model.step(input(1, 2, 3, &device), &[0], &mut copy);
    let mut again = model.cache(1, 4, &device);
    model.step(input(1, 2, 1, &device), &[0], &mut again);
    assert_eq!(values(model.step(next, &[0], &mut again)), expected);
    assert_eq!((cache.len(), copy.len()), (3, 4));
}

/// A front filler sees nothing at all: its attention row is fully hidden, and must not be NaN,
/// because its keys and values are read (with weight 0) by every later position.
#[test]
fn rows_that_see_nothing_are_finite_and_change_nothing() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let model = lively(&small(4, 2), &device);
        let mut cache = model.cache(2, 6, &device);
        let x = input(2, 4, 1, &device);
        let fillers = [4, 1];
        let prefill = model.step(x.clone(), &fillers, &mut cache);
        let next = input(2, 2, 2, &device);
        let hidden = model.step(next.clone(), &fillers, &mut cache);
        let all = values(Tensor::cat(vec![prefill, hidden.clone()], 1));
        assert!(all.iter().all(|v| v.is_finite()));
        let alone = |row: usize, from: usize| {
            let own = x.clone().narrow(0, row, 1);
            let new = next.clone().narrow(0, row, 1);
            let whole = match 4 - from {
                0 => new,
                seen => Tensor::cat(vec![own.narrow(1, from, seen), new], 1),
            };
            let positions = whole.dims()[1];
            values(model.forward(whole).narrow(1, positions - 2, 2))
        };
        for (row, from) in fillers.into_iter().enumerate() {
            let batched = values(hidden.clone().narrow(0, row, 1));
            for (a, b) in batched.iter().zip(alone(row, from)) {
                approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-5);
            }
        }
    }
}
