//! Standard output that fails with a message, not a panic.

use std::io::Write;

use crate::error::{CliError, Result};

/// Writes `text` and flushes.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| CliError::Io {
            path: "standard output".into(),
            source,
        })
}
