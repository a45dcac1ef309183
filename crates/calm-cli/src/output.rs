//! What the program says: on standard output, failing with a message, and on standard error.

use std::io::{ErrorKind, Write};

use crate::error::{CliError, Result};

/// Writes `text` and flushes.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| match source.kind() {
            ErrorKind::BrokenPipe => CliError::NobodyReads,
            _ => CliError::Io {
                path: "standard output".into(),
                source,
            },
        })
}

/// A line on standard error; where nobody reads it, nothing is said.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
