//! Evaluation protocol: BrierLM and reconstruction over a corpus. Trains nothing.
//!
//! ```
//! use calm_eval::{EvalConfig, evaluate_rollout};
//! use calm_likelihood_free::{Rollout, Start};
//! use calm_nn::Draws;
//!
//! /// A model that always says 1 2 3 4, on a text that always says 1 2 3 4.
//! struct Certain;
//! impl Rollout for Certain {
//!     fn roll_out(&mut self, _: &[u32], draws: usize, _: &mut dyn Draws) -> Vec<Start> {
//!         vec![Start { target: [1, 2, 3, 4], draws: vec![vec![1, 2, 3, 4]; draws] }]
//!     }
//! }
//!
//! let config = EvalConfig { windows: 2, draws: 8, every: 0, seed: 1 };
//! let windows = [&[0, 1, 2, 3, 4][..]; 2];
//! let report = evaluate_rollout(&mut Certain, &windows, &[1; 5], &config, &mut |_| true)?.unwrap();
//! assert_eq!(report.estimate.brier_lm, 100.0);
//! assert!((report.unigram[0] - (2.0 / 5.0 - 1.0 / 5.0)).abs() < 1e-12);
//! # Ok::<(), calm_eval::EvalError>(())
//! ```

mod bound;
mod brier;
mod heed;
mod protocol;
mod reconstruction;
mod replicas;
mod token_model;

pub use bound::{Bound, BoundReport, bound};
pub use brier::{BrierReport, evaluate, evaluate_on, evaluate_rollout};
pub use heed::{Heed, heed};
pub use protocol::{EvalConfig, EvalError, spread};
pub use reconstruction::{Reconstruction, reconstruct};
pub use replicas::{Replica, on_each};
pub use token_model::{TokenReport, TokenScoring, evaluate_tokens, evaluate_tokens_on};
