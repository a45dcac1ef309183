//! One suite of cases that any device runs: every kernel and module, forward and backward, against its
//! plain version or the CPU; decoding and training by recorded draws; checkpoints that move between
//! devices. Cases are files (`cases/*.toml`), and so is what the CPU made of them (`recorded.json`).
//!
//! ```
//! use calm_conform::{Suite, Status};
//! use calm_lm::NamedDevice;
//!
//! let suite = Suite::built_in()?.only("rms_norm");
//! for result in suite.run(&NamedDevice::open("flex")?, &mut |_| ()) {
//!     assert_eq!(result.status, Status::Passed, "{}: {}", result.name, result.detail);
//! }
//! # Ok::<(), calm_conform::Error>(())
//! ```

mod case;
mod kernels;
mod models;
mod outputs;
mod suite;
mod training;

pub use case::{Case, Check, Part, Work};
pub use outputs::{Outputs, Recorded};
pub use suite::{CaseResult, Error, Status, Suite};
