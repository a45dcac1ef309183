//! Peak memory of a part of the process.

/// Starts the measurement of [`calm_train::peak_rss_bytes`] anew from what is held now, where the
/// system can (Linux: `/proc/self/clear_refs`); elsewhere the peak stays that of the whole process.
pub(crate) fn forget_peak() {
    if cfg!(target_os = "linux") {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_peak_is_forgotten() {
        let block = vec![1u8; 256 << 20];
        assert!(std::hint::black_box(&block).len() > 1);
        let with = calm_train::peak_rss_bytes().unwrap();
        drop(block);
        if std::fs::write("/proc/self/clear_refs", "5").is_err() {
            return; // A sandbox may forbid it.
        }
        super::forget_peak();
        let after = calm_train::peak_rss_bytes().unwrap();
        assert!(after + (128 << 20) < with, "{after} after {with}");
    }
}
