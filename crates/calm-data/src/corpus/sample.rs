//! A sample of the training text, for what needs some of it in memory.

use super::{BadLinePolicy, Corpus, ShardPlace};
use crate::cache::CacheDir;
use crate::error::Result;
use crate::split::{Part, Split};

/// Training text, all of it or evenly spread pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The texts, in order.
    pub texts: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the whole training part, where all of it was read.
    pub of: Option<u64>,
}

impl Corpus {
    /// About `limit` bytes of the training part, evenly spread over the files; all of it where
    /// it has no more. `on_progress` is called with the bytes of the files read so far, and
    /// with those in all.
    ///
    /// # Errors
    /// As [`Corpus::stretches`] and its iterator.
    pub fn training_sample(
        &self,
        cache: &CacheDir,
        split: &Split,
        policy: BadLinePolicy,
        limit: u64,
        on_progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Sample> {
        let total = self.total_bytes(cache)?;
        let mut stretches = self.stretches(cache, split, policy)?;
        let mut sample = Sample {
            texts: Vec::new(),
            bytes: 0,
            of: None,
        };
        let mut of = 0;
        while let Some(stretch) = stretches.next() {
            let stretch = stretch?;
            if stretch.part != Part::Train {
                continue;
            }
            let read = stretches.bytes_read();
            on_progress(read, total);
            let bytes = stretch.text.len() as u64;
            of += bytes;
            // As much of the limit as of the files.
            let due = limit as f64 * (read as f64 / total as f64);
            if (sample.bytes as f64) < due {
                sample.bytes += bytes;
                sample.texts.push(stretch.text);
            }
        }
        sample.of = Some(of);
        Ok(sample)
    }

    /// About `limit` bytes of the training part from the beginnings of the files, as much of each: no
    /// more of them is read than that takes.
    ///
    /// # Errors
    /// As [`Corpus::stretches`] and its iterator.
    pub fn training_heads(
        &self,
        cache: &CacheDir,
        split: &Split,
        policy: BadLinePolicy,
        limit: u64,
    ) -> Result<Sample> {
        let shards = self.shards(cache, split, policy)?;
        let count = shards.count() as u64;
        let mut sample = Sample {
            texts: Vec::new(),
            bytes: 0,
            of: None,
        };
        for i in 0..count {
            // What earlier files lacked is taken from later ones.
            let due = (i + 1) * limit / count;
            if sample.bytes >= due {
                continue;
            }
            let mut shard = shards.read(i as usize, ShardPlace::default())?;
            while sample.bytes < due {
                let Some((_, stretch)) = shard.next_training()? else {
                    break;
                };
                sample.bytes += stretch.text.len() as u64;
                sample.texts.push(stretch.text);
            }
        }
        Ok(sample)
    }
}
