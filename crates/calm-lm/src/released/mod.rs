//! The checkpoints of CALM's released code, and LLaMA token models in the form of transformers.
//!
//! [`import`] reads them; [`export`] writes models of this project in their form.

mod config;
mod export;
mod import;
mod names;

pub use config::{ReleasedConfig, TokenIds};
pub use export::export;
pub use import::import;
