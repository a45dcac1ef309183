//! One trainer in a run directory at a time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};

use calm_records::{RunDir, utc_now};

use crate::{Error, Result};

/// The lock of a run directory. The system frees it when the process ends, however it ends; the
/// file `lock` stays behind and says who held it last.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock, or says who holds it.
    ///
    /// # Errors
    /// [`Error::Locked`], and where the file can't be made.
    pub(crate) fn take(run: &RunDir) -> Result<Self> {
        let path = run.lock();
        let io = || Error::io(&path);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Some systems don't let a locked file be read.
                let mut holder = String::new();
                let told = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                return Err(Error::Locked {
                    run: run.root.clone(),
                    holder: if told {
                        holder.trim().to_owned()
                    } else {
                        "another process".to_owned()
                    },
                });
            }
            Err(TryLockError::Error(error)) => return Err(io()(error)),
        }
        let holder = format!("process {}, since {}\n", std::process::id(), utc_now());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(io())?;
        Ok(Self { _file: file })
    }
}
