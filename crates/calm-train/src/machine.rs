//! What the machine says about itself.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use calm_kernels::{linear, with_matmul_precision};

use crate::Precision;

/// Largest resident memory of this process so far in bytes, where the system tells (Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Matrix products per second that the device reaches, in FLOP/s: the best of a few square
/// products, by our kernel at `precision` and, in f32, by Burn's. The denominator of MFU, measured
/// in the same run.
///
/// `None` where the device can't be synchronised.
pub fn matmul_peak(device: &Device, precision: Precision) -> Option<f64> {
    const SIZE: usize = 1536;
    let precision = precision.on(device);
    let a = Tensor::<2>::ones([SIZE, SIZE], device);
    let mut best = 0.0f64;
    for i in 0..12 {
        device.sync().ok()?;
        let begun = Instant::now();
        let product = if i % 2 == 0 && precision == Precision::F32 {
            a.clone().matmul(a.clone())
        } else {
            let product = || linear(a.clone(), a.clone(), None);
            with_matmul_precision(precision.of_products(), product)
        };
        device.sync().ok()?;
        let seconds = begun.elapsed().as_secs_f64();
        drop(product);
        best = best.max(2.0 * (SIZE as f64).powi(3) / seconds);
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_use() {
        let before = peak_rss_bytes().unwrap();
        let block = vec![1u8; 256 << 20];
        assert!(
            std::hint::black_box(&block)
                .iter()
                .step_by(4096)
                .all(|&b| b == 1)
        );
        assert!(peak_rss_bytes().unwrap() >= before.max(256 << 20));
    }
}
