//! What the machine says about itself.

use std::time::Instant;

use burn::tensor::{Device, Tensor};

/// Largest resident memory of this process so far in bytes, where the system tells (Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Matrix products per second that the device reaches, in FLOP/s: the best of a few square f32
/// products of size 1024. The denominator of MFU, measured in the same run.
///
/// `None` where the device can't be synchronised.
pub fn matmul_peak(device: &Device) -> Option<f64> {
    const SIZE: usize = 1024;
    let a = Tensor::<2>::ones([SIZE, SIZE], device);
    let mut best = 0.0f64;
    for _ in 0..6 {
        device.sync().ok()?;
        let begun = Instant::now();
        let product = a.clone().matmul(a.clone());
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
