//! The files of a corpus, each of them read by itself from any place.

use super::pieces::{Pieces, Unit};
use super::reader::Place;
use super::stretches::Stretches;
use super::{BadLinePolicy, Stretch};
use crate::error::Result;
use crate::split::{Part, Split};
use crate::windows::BlockStart;

/// The files of a corpus, with the rule of which text is for training.
#[derive(Debug, Clone)]
pub struct Shards {
    pub(super) units: Vec<Unit>,
    pub(super) split: Split,
    pub(super) policy: BadLinePolicy,
}

/// Where a stretch begins in a file: the work that it belongs to, and the work's stretches before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShardPlace {
    pub items: u64,
    pub bytes: u64,
    pub stretches: u64,
}

impl ShardPlace {
    /// Where the first stretch of a block begins.
    pub fn of(start: BlockStart) -> Self {
        Self {
            items: start.items,
            bytes: start.bytes,
            stretches: start.stretches,
        }
    }
}

impl Shards {
    /// Number of files, at least 1.
    pub fn count(&self) -> usize {
        self.units.len()
    }

    /// The text of file number `shard` from a place on.
    pub(crate) fn read(&self, shard: usize, place: ShardPlace) -> Result<Shard> {
        let work = Place {
            items: place.items,
            bytes: place.bytes,
        };
        let pieces = Pieces::of(self.units[shard].clone(), work, self.policy);
        let mut stretches = Stretches::new(pieces, self.split.clone());
        for _ in 0..place.stretches {
            if stretches.next().transpose()?.is_none() {
                break;
            }
        }
        Ok(Shard { stretches })
    }
}

/// A file under way.
#[derive(Debug)]
pub(crate) struct Shard {
    stretches: Stretches,
}

impl Shard {
    /// The next stretch for training and where it begins; `None` at the end of the file.
    pub fn next_training(&mut self) -> Result<Option<(ShardPlace, Stretch)>> {
        loop {
            let (Place { items, bytes }, stretches) = self.stretches.place();
            let Some(stretch) = self.stretches.next().transpose()? else {
                return Ok(None);
            };
            if stretch.part == Part::Train {
                let place = ShardPlace {
                    items,
                    bytes,
                    stretches,
                };
                return Ok(Some((place, stretch)));
            }
        }
    }

    /// Lines skipped as bad since it was opened.
    pub fn bad_lines(&self) -> u64 {
        self.stretches.bad_lines()
    }
}
