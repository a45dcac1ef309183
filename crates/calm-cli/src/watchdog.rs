//! Ends the program where remote devices keep it waiting: a thread that waits for one can't be stopped.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use calm_lm::NamedDevice;

use crate::output::tell;

/// Watches for news of a training.
pub struct Watchdog(Option<Arc<Mutex<Instant>>>);

impl Watchdog {
    /// Begins where one of the devices is remote. It waits twice as long as the trainer, which knows
    /// better which of them is lost.
    pub fn start(devices: &[NamedDevice], timeout: Duration) -> Self {
        let remote: Vec<_> = devices.iter().filter(|d| d.is_remote()).cloned().collect();
        if remote.is_empty() {
            return Self(None);
        }
        let news = Arc::new(Mutex::new(Instant::now()));
        let last = Arc::clone(&news);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let since = last.lock().map_or(Duration::ZERO, |last| last.elapsed());
                if since > timeout.saturating_mul(2) {
                    tell(&format!(
                        "error: device '{}' is lost: nothing happened for {} s; `--resume` goes on \
                         from the newest checkpoint",
                        silent(remote).join("', '"),
                        since.as_secs()
                    ));
                    std::process::exit(1);
                }
            }
        });
        Self(Some(news))
    }

    /// Something happened.
    pub fn news(&self) {
        if let Some(Ok(mut last)) = self.0.as_ref().map(|last| last.lock()) {
            *last = Instant::now();
        }
    }
}

/// Those that don't answer within a few seconds; all, where all do.
fn silent(remote: Vec<NamedDevice>) -> Vec<String> {
    let (to, answers) = mpsc::channel();
    for (i, device) in remote.iter().cloned().enumerate() {
        let to = to.clone();
        std::thread::spawn(move || {
            let zero = Tensor::<1>::zeros([1], &device.device);
            if zero.try_into_scalar::<f32>().is_ok() {
                let _ = to.send(i);
            }
        });
    }
    let until = Instant::now() + Duration::from_secs(5);
    let mut answered = vec![false; remote.len()];
    while let Ok(i) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answered[i] = true;
    }
    let all = answered.iter().all(|&answered| answered);
    let named = remote.into_iter().zip(answered);
    let lost = named.filter(|(_, answered)| all || !answered);
    lost.map(|(device, _)| device.name).collect()
}
