//! What the benches share: the device named by `CALM_BENCH_DEVICE` and the nano preset's model.
//!
//! ```
//! let nano = calm_benches::nano();
//! assert_eq!(nano.window % nano.chunk_size, 0);
//! ```

pub mod cold;
pub mod growth;
pub mod jobs;
pub mod timing;
pub mod variation;

use burn::tensor::Device;
use calm_lm::{CalmModel, ModelConfig};
use calm_nn::{Init, RandomStream};

/// As in the `calm` program, so that the figures are its own.
#[global_allocator]
static ALLOCATOR: calm_alloc::Allocator = calm_alloc::ALLOCATOR;

/// The device to measure; flex where none is named.
///
/// # Panics
/// Where the device can't be opened.
pub fn device() -> Device {
    calm_alloc::keep_pages();
    let name = std::env::var("CALM_BENCH_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    calm_lm::open_device(&name).unwrap_or_else(|error| panic!("{error}"))
}

/// The nano preset's model.
///
/// # Panics
/// Never: the preset is tested.
pub fn nano() -> ModelConfig {
    calm_train::preset::resolve("nano", &[])
        .expect("the nano preset")
        .model
}

/// A nano model with a lively last layer: at the usual zero start all samples coincide and
/// decoding is a sham.
pub fn lively(config: &ModelConfig, device: &Device) -> CalmModel {
    let mut model = config.init(1, device);
    let out = model.language_model.head.output_mut();
    *out = Init::new(2, device).linear(config.backbone.hidden_size, config.latent_size);
    out.weight = out.weight.clone().map(|w| w * 25.0);
    model
}

/// Random token ids.
pub fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    let mut stream = RandomStream::new(3);
    (0..n).map(|_| stream.below(vocab) as u32).collect()
}
