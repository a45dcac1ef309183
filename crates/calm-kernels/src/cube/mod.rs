//! What the kernels in CubeCL share. All read and write f32, contiguous.

pub(crate) mod philox;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::{calculate_cube_count_elemwise, client::Client};

/// Units of a cube that works on a row together; a power of two.
pub(crate) const UNITS: u32 = 64;

/// The tensor as kernels read it.
///
/// # Panics
/// Where it is not f32.
pub(crate) fn floats(x: CubeTensor) -> CubeTensor {
    assert_eq!(x.dtype, DType::F32, "the kernels read f32");
    into_contiguous(x)
}

/// A tensor with nothing in it yet, beside `like`.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_dtype(client, device, shape.into(), DType::F32)
}

/// Zeros, beside `like`.
pub(crate) fn zeros(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    zeros_client(client, device, shape.into(), DType::F32)
}

pub(crate) fn len(x: &CubeTensor) -> usize {
    x.meta.shape().iter().product()
}

/// The last dimension.
pub(crate) fn width(x: &CubeTensor) -> usize {
    *x.meta.shape().last().expect("a dimension")
}

/// A unit for each of `n` entries.
pub(crate) fn per_entry(client: &Client, n: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, n);
    (calculate_cube_count_elemwise(client, n, dim), dim)
}

/// A cube of [`UNITS`] for each of `n` rows.
pub(crate) fn per_row(client: &Client, n: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS);
    let count = calculate_cube_count_elemwise(client, n * UNITS as usize, dim);
    (count, dim)
}

/// Room for [`sum`] and [`largest`].
#[cube]
pub(crate) fn scratch() -> Shared<[f32]> {
    Shared::<[f32]>::new_slice(comptime!(UNITS as usize))
}

/// The sum of the values of all units, for all of them; every unit of the cube must come here.
#[cube]
pub(crate) fn sum(value: f32, scratch: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    // What was read of the scratch before is read by now.
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    let mut half = comptime!(UNITS as usize / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = scratch[unit + half];
            scratch[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    scratch[0]
}

/// The largest of the values of all units; as [`sum`].
#[cube]
pub(crate) fn largest(value: f32, scratch: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    let mut half = comptime!(UNITS as usize / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = scratch[unit + half];
            scratch[unit] = max(scratch[unit], other);
        }
        sync_cube();
        half /= 2;
    }
    scratch[0]
}
