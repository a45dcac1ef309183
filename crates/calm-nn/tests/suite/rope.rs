//! Rotary positions against the independent reference.

use burn::tensor::{Device, Tensor};
use calm_fixtures::{Fixture, FixtureError, assert_close, values};
use calm_nn::Rope;

/// `[heads, positions, width]` to `[1, positions, heads * width]`.
fn one_row_per_position(x: Tensor<3>) -> Tensor<3> {
    let [heads, positions, width] = x.dims();
    x.swap_dims(0, 1).reshape([1, positions, heads * width])
}

#[test]
fn rotation_is_that_of_the_reference_up_to_position_1000() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("rope")?;
    let width = f.whole("config/head_dim")?;
    let positions: Vec<usize> = f
        .golden("inputs/positions")?
        .values
        .iter()
        .map(|&p| p as usize)
        .collect();
    assert!(positions.contains(&0) && positions.contains(&1000));
    for case in f.list("outputs/cases")? {
        let theta = case.number("rope_theta")?;
        let rope = Rope::at(positions.iter().copied(), width, theta, &device);
        let q = one_row_per_position(f.tensor::<3>("inputs/q", &device)?);
        let [_, positions, all] = q.dims();
        let rotated = rope.rotate(q);
        let rotated = rotated.reshape([positions, all / width, width]);
        assert_close(rotated.swap_dims(0, 1), &case.golden("rotated")?, 1e-6);
    }
    Ok(())
}

#[test]
fn rotation_keeps_lengths_and_leaves_position_0_alone() -> Result<(), FixtureError> {
    let device = Device::flex();
    let q = one_row_per_position(Fixture::load("rope")?.tensor::<3>("inputs/q", &device)?);
    let still = Rope::at([0; 6], 8, 10_000.0, &device).rotate(q.clone());
    assert_eq!(values(still), values(q.clone()));
    let turned = Rope::at([1, 7, 50, 999, 12_345, 3], 8, 10_000.0, &device).rotate(q.clone());
    assert_ne!(values(turned.clone()), values(q.clone()));
    for (a, b) in values(turned).chunks(8).zip(values(q).chunks(8)) {
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        approx::assert_relative_eq!(norm(a), norm(b), max_relative = 1e-6);
    }
    Ok(())
}

#[test]
#[should_panic(expected = "head width 7 is odd")]
fn an_odd_head_width_is_refused() {
    Rope::at([0], 7, 10_000.0, &Device::flex());
}
