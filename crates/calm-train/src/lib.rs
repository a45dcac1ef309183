//! Presets, experiment configuration, stages, optimizer, step loop, checkpoints and resume.
//!
//! A run is a directory; [`train`] starts one and [`resume`] goes on with one, exactly: the loss
//! of every later step is the one that an uninterrupted run has.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use calm_data::CacheDir;
//! use calm_train::{Options, Stages, preset, train};
//!
//! let experiment = preset::resolve("debug", &["optim.lr=3e-4".to_owned()])?;
//! let device = calm_lm::NamedDevice::open("flex")?;
//! let options = Options {
//!     out: "runs/debug".into(), stages: Stages::All, device: &device,
//!     others: &[], device_timeout: calm_train::DEVICE_TIMEOUT, all_reduce: false,
//!     cache: &CacheDir::default_location()?, interrupt: &AtomicBool::new(false),
//! };
//! train(experiment, Default::default(), &options, &mut |event| println!("{event:?}"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod all_reduce;
mod config;
pub mod data;
mod error;
mod event;
mod finish;
mod found;
mod initial;
mod lock;
mod machine;
mod memory;
mod optimizer;
mod parallel;
pub mod preset;
mod pretrained;
mod run;
mod samples;
mod stages;
mod state;
mod step_loop;
mod tasks;
mod text;

pub use config::{
    BaselineConfig, CheckpointConfig, DataConfig, Experiment, OptimConfig, Precision,
    SamplesConfig, StageConfig, Stages, StreamSettings,
};
pub use error::{Error, Result};
pub use event::{Event, Observer};
pub use machine::{matmul_peak, peak_rss_bytes};
pub use memory::StageMemory;
pub use optimizer::{adamw, clip_by_global_norm};
pub use run::{DEVICE_TIMEOUT, Options, RunEnd, resume, train};
pub use state::{Newest, TrainState, baseline_checkpoint, language_model_checkpoint};
