//! The numbers of [`crate::normals`], made in a kernel.

use cubecl::prelude::*;

/// Numbers `4 counter .. 4 counter + 4` of the key `(low, high)`.
#[cube]
pub(crate) fn normals(low: u32, high: u32, counter: u32) -> Array<f32> {
    let mut out = Array::<f32>::new(4usize);
    let mut x0 = counter;
    let mut x1 = 0u32.runtime();
    let mut x2 = 0u32.runtime();
    let mut x3 = 0u32.runtime();
    let mut k0 = low;
    let mut k1 = high;
    for _ in 0..10u32 {
        let a_high = x0.mul_hi(0xD251_1F53u32);
        let a_low = x0 * 0xD251_1F53u32;
        let b_high = x2.mul_hi(0xCD9E_8D57u32);
        let b_low = x2 * 0xCD9E_8D57u32;
        x0 = b_high ^ x1 ^ k0;
        x1 = b_low;
        x2 = a_high ^ x3 ^ k1;
        x3 = a_low;
        k0 += 0x9E37_79B9u32;
        k1 += 0xBB67_AE85u32;
    }
    box_muller(x0, x1, &mut out, 0usize);
    box_muller(x2, x3, &mut out, 2usize);
    out
}

/// Two words give a radius and an angle, and so two normal numbers; see `crate::philox`.
#[cube]
fn box_muller(radius: u32, angle: u32, out: &mut Array<f32>, #[comptime] at: usize) {
    let u = (f32::cast_from(radius) + 0.5f32) * 2.328_306_4e-10f32;
    let r = (-2.0f32 * ln(u)).sqrt();
    let quadrant = angle >> 30u32;
    let part = f32::cast_from((angle << 2u32) >> 8u32) * 5.960_464_5e-8f32 - 0.5f32;
    let x = part * 1.570_796_3f32;
    let square = x * x;
    let sin = x
        * (1.0f32
            + square
                * (-1.666_666_5e-1f32 + square * (8.333_216e-3f32 - square * 1.951_529_6e-4f32)));
    let cos = 1.0f32
        + square
            * (-0.5f32
                + square
                    * (4.166_664_6e-2f32
                        + square * (-1.388_731_6e-3f32 + square * 2.443_315_7e-5f32)));
    let swap = (quadrant & 1u32) == 1u32;
    let a = select(swap, -sin, cos);
    let b = select(swap, cos, sin);
    let signed = select((quadrant & 2u32) == 2u32, -r, r);
    out[at] = signed * a;
    out[at + 1] = signed * b;
}

/// The natural logarithm of a normal positive number, by the polynomial of `crate::philox`: the
/// accuracy of a GPU's own is its maker's choice.
#[cube]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let above = (bits & 0x7F_FFFFu32) > 0x35_04F2u32;
    // Mantissa in [sqrt(1/2), sqrt(2)).
    let mantissa = (bits & 0x7F_FFFFu32) | select(above, 0x3F00_0000u32, 0x3F80_0000u32);
    let e = f32::cast_from(bits >> 23u32) - select(above, 126.0f32, 127.0f32);
    let m = f32::from_bits(mantissa) - 1.0f32;
    let square = m * m;
    let p = 7.037_683_6e-2f32;
    let p = p * m - 1.151_461e-1f32;
    let p = p * m + 1.167_699_9e-1f32;
    let p = p * m - 1.242_014_1e-1f32;
    let p = p * m + 1.424_932_3e-1f32;
    let p = p * m - 1.666_805_7e-1f32;
    let p = p * m + 2.000_071_5e-1f32;
    let p = p * m - 2.499_999_4e-1f32;
    let p = p * m + 3.333_333e-1f32;
    let y = p * m * square + e * -2.121_944_4e-4f32 - 0.5f32 * square;
    m + y + e * 0.693_359_4f32
}
