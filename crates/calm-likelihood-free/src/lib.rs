//! Likelihood-free losses, heads, temperature samplers and metric of CALM, which need nothing of a
//! model but draws; and what a decoder's probabilities add to them ([`log_score`]).
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use calm_likelihood_free::{BatchSampler, PoolSampler, energy_score};
//! use calm_nn::RandomStream;
//!
//! let device = Device::flex();
//! let samples = Tensor::<3>::from_floats([[[0.0, 0.0]], [[0.0, 2.0]]], &device); // N = 2
//! let targets = Tensor::<3>::from_floats([[[0.0, 1.0]]], &device); // M = 1
//! let score = energy_score(samples, targets, 1.0);
//! assert_eq!(score.loss().into_scalar::<f32>(), 2.0 * 1.0 - 2.0);
//!
//! let sampler = BatchSampler::new(0.5, 4)?; // T = 1/2 from pools of 4
//! let pool = [[7, 7], [1, 2], [7, 7], [3, 4]];
//! assert_eq!(sampler.choose(&pool, &mut RandomStream::new(1)), 0); // only 7 7 came twice
//! # Ok::<(), calm_likelihood_free::SamplerError>(())
//! ```

mod brier;
mod denoiser;
mod diffusion_head;
mod energy_head;
mod energy_score;
mod exact;
mod flow_head;
mod growing;
mod head;
mod mixture;
mod sampler;

pub use calm_nn::{Draws, HostDraws, MAX_N, Posterior, RandomStream};

pub use brier::{
    BrierAccumulator, BrierEstimate, DrawnPrefix, Rollout, Start, brier_at, brier_lm,
    brier_of_probabilities, unigram_brier_at,
};
pub use denoiser::{Denoiser, DenoiserBlock, DenoiserConfig};
pub use diffusion_head::{
    DIFFUSION_TIMES, DiffusionDraws, DiffusionHead, DiffusionHeadConfig, DiffusionLoss,
    DiffusionTerms,
};
pub use energy_head::{EnergyBlock, EnergyHead, EnergyHeadConfig};
pub use energy_score::{EnergyScore, energy_score};
pub use exact::{Attempts, ExactSampler, Otherwise, Sampled};
pub use flow_head::{FlowDraws, FlowHead, FlowHeadConfig, Solver};
pub use growing::GrowingSampler;
pub use head::{GenerativeHead, Head, HeadConfig, HeadKind, HeadLoss, HeadSettings};
pub use mixture::{brier_loss, log_score, log_score_loss, mixture_brier};
pub use sampler::{BatchSampler, ChunkSource, PoolSampler, SamplerError};

/// The library example of the project's README, so that it keeps compiling.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The crate's own.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct CrateReadme;
