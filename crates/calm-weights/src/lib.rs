//! Tensor files of other programs: safetensors and PyTorch's `.bin`, single or in shards.
//!
//! Files are taken for hostile: opening one runs nothing of it, reads its directory of tensors alone
//! and checks it against the file's size; numbers are read one tensor at a time.
//!
//! ```
//! use calm_weights::{TensorFiles, TensorToWrite, write_safetensors};
//!
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("model.safetensors");
//! write_safetensors(&path, &[], vec![TensorToWrite::floats("bias", [2], vec![0.5, -1.0])])?;
//! let files = TensorFiles::open(directory.path())?;
//! let bias = files.get("bias").expect("it was written");
//! assert_eq!((bias.shape(), bias.floats()?), (&[2][..], vec![0.5, -1.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dtype;
mod error;
mod file;
mod files;
#[cfg(feature = "hub")]
pub mod hub;
mod index;
mod write;

pub use dtype::Dtype;
pub use error::{Error, Result, printable};
pub use file::{Tensor, TensorFile};
pub use files::TensorFiles;
pub use index::{WEIGHT_FILES, parse_index};
pub use write::{TensorToWrite, write_safetensors};
