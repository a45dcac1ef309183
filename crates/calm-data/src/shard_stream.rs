//! Training windows from files, encoded ahead of whoever trains: for text that is not worth, or too long
//! for, encoding as a whole first.
//!
//! Each epoch reads the files in another order. Their training text, one file after the other, is cut
//! into blocks of consecutive windows, and the windows of a block come in a shuffled order. A block is
//! read and encoded on threads of its own while the one before it is used, so memory holds two.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::corpus::{Shard, ShardPlace, Shards};
use crate::error::{Error, Result};
use crate::permutation::{Permutation, below, key};
use crate::tokenizer::{BATCH_BYTES, BATCH_TEXTS, Tokenizer};
use crate::windows::{BlockStart, Cursor, PURPOSE_OFFSET, PURPOSE_ORDER};

/// The order of an epoch's blocks: purposes from here on.
const PURPOSE_BLOCKS: u64 = 16;

/// How a corpus is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// Window length in tokens.
    pub window: usize,
    /// Chunk size K in tokens.
    pub chunk: usize,
    /// Tokens that are shuffled at a time, rounded down to windows, one at least. Twice as many are held,
    /// at 4 bytes each.
    pub buffer_tokens: usize,
    /// Whose files are read.
    pub rank: Rank,
}

/// One of several readers of a corpus, each of which reads files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Which, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Rank {
    /// The only reader, of all files.
    pub const ONLY: Self = Self { index: 0, of: 1 };
}

impl Shards {
    /// Endless shuffled windows of the training text, from `cursor` on. The same files, tokenizer,
    /// configuration and seed give the same windows. Waits for the first block.
    ///
    /// # Errors
    /// [`Error::WindowNotMultiple`], [`Error::FewShards`], [`Error::CursorOutOfRange`] for a cursor that
    /// these files have no block for, and all errors of reading and encoding.
    pub fn stream(
        self,
        tokenizer: &Tokenizer,
        config: StreamConfig,
        cursor: Cursor,
    ) -> Result<ShardStream> {
        let StreamConfig {
            window,
            chunk,
            rank,
            ..
        } = config;
        if chunk == 0 || window == 0 || !window.is_multiple_of(chunk) {
            return Err(Error::WindowNotMultiple { window, chunk });
        }
        if self.count() < rank.of || rank.index >= rank.of {
            return Err(Error::FewShards {
                shards: self.count(),
                readers: rank.of.max(rank.index + 1),
            });
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let reader = Reader::new(
            self,
            tokenizer.clone(),
            config,
            cursor,
            Arc::clone(&stopped),
        )?;
        // It hands a block over and begins the next.
        let (to, blocks) = sync_channel(0);
        let reader = thread::Builder::new()
            .name("shard reader".to_owned())
            .spawn(move || reader.run(&to))
            .map_err(Error::io(
                "start a thread for",
                std::path::Path::new("text"),
            ))?;
        let mut stream = ShardStream {
            window,
            cursor,
            block: Block::default(),
            order: Permutation::new(0, 0),
            bad_lines: 0,
            blocks: Some(blocks),
            reader: Some(reader),
            stopped,
        };
        stream.next_block()?;
        let windows = match cursor.block {
            // A block that was used up is passed over by the next window.
            Some(_) if stream.cursor.block == cursor.block => stream.windows(),
            _ => 0,
        };
        if cursor.position > windows || stream.cursor.epoch != cursor.epoch {
            return Err(Error::CursorOutOfRange {
                epoch: cursor.epoch,
                position: cursor.position,
                windows,
            });
        }
        stream.cursor.position = cursor.position;
        Ok(stream)
    }
}

/// Consecutive windows.
#[derive(Debug, Default)]
struct Block {
    epoch: u64,
    start: Option<BlockStart>,
    tokens: Vec<u32>,
    /// Lines skipped as bad while it was read.
    bad_lines: u64,
}

/// Endless shuffled windows from files: see [`Shards::stream`]. Dropping it ends its reader.
#[derive(Debug)]
pub struct ShardStream {
    window: usize,
    cursor: Cursor,
    block: Block,
    order: Permutation,
    bad_lines: u64,
    blocks: Option<Receiver<Result<Block>>>,
    reader: Option<JoinHandle<()>>,
    /// Tells the reader that nobody wants more.
    stopped: Arc<AtomicBool>,
}

impl ShardStream {
    /// The next window, `[window]` tokens.
    ///
    /// # Errors
    /// Those of reading and encoding; after one only [`Error::StreamEnded`].
    pub fn next_window(&mut self) -> Result<&[u32]> {
        if self.cursor.position >= self.windows() {
            self.next_block()?;
        }
        let start = self.order.get(self.cursor.position) as usize * self.window;
        self.cursor.position += 1;
        Ok(&self.block.tokens[start..start + self.window])
    }

    /// The next `batch` windows, row-major `[batch, window]`.
    ///
    /// # Errors
    /// As [`ShardStream::next_window`].
    pub fn next_batch(&mut self, batch: usize) -> Result<Vec<u32>> {
        let mut rows = Vec::with_capacity(batch * self.window);
        for _ in 0..batch {
            rows.extend_from_slice(self.next_window()?);
        }
        Ok(rows)
    }

    /// Windows of the present block.
    fn windows(&self) -> u64 {
        (self.block.tokens.len() / self.window) as u64
    }

    /// Where the stream stands: [`Shards::stream`] with it gives exactly the windows that follow here. Of
    /// what lies before, nothing is encoded again, other files are not opened, and of its own file JSON
    /// Lines and the row groups of Parquet are not read; compressed JSON Lines are decompressed, and other
    /// kinds are read.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Lines skipped as bad since the stream was opened, in the blocks up to the present one.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    fn next_block(&mut self) -> Result<()> {
        let next = self.blocks.as_ref().and_then(|blocks| blocks.recv().ok());
        let Some(block) = next else {
            // It has told its error before, unless it panicked.
            if let Some(Err(panic)) = self.reader.take().map(JoinHandle::join) {
                std::panic::resume_unwind(panic);
            }
            return Err(Error::StreamEnded);
        };
        self.block = block?;
        self.bad_lines += self.block.bad_lines;
        let number = self.block.start.map_or(0, |start| start.number);
        let seed = self.cursor.seed;
        let order = key(seed, self.block.epoch, PURPOSE_BLOCKS + number);
        self.order = Permutation::new(self.windows(), order);
        self.cursor = Cursor {
            seed,
            epoch: self.block.epoch,
            position: 0,
            block: self.block.start,
        };
        Ok(())
    }
}

impl Drop for ShardStream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.blocks = None;
        // What it ended with has no one to be told.
        _ = self.reader.take().map(JoinHandle::join);
    }
}

/// Reads and encodes.
struct Reader {
    shards: Shards,
    tokenizer: Tokenizer,
    /// Not the pool that the training computes in.
    pool: ThreadPool,
    config: StreamConfig,
    seed: u64,
    epoch: u64,
    /// Blocks of the epoch before the next.
    number: u64,
    /// Files of the epoch before the one that is open or opened next.
    at: u64,
    shard: Option<Shard>,
    encoded: VecDeque<Encoded>,
    /// Tokens that the epoch began with and left out.
    offset: u64,
    /// Whether the epoch has no more.
    is_over: bool,
    /// Bad lines since the last block, and those of the open file.
    bad_lines: u64,
    of_shard: u64,
    stopped: Arc<AtomicBool>,
}

/// Tokens of a stretch.
struct Encoded {
    shard: u64,
    place: ShardPlace,
    tokens: Vec<u32>,
    /// How many are gone.
    used: usize,
}

impl Reader {
    fn new(
        shards: Shards,
        tokenizer: Tokenizer,
        config: StreamConfig,
        cursor: Cursor,
        stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        let Cursor {
            seed, epoch, block, ..
        } = cursor;
        let pool = ThreadPoolBuilder::new()
            .thread_name(|i| format!("encoder {i}"))
            .build()
            .map_err(|e| Error::Tokenize {
                action: "start threads for",
                reason: e.to_string(),
            })?;
        let mut reader = Self {
            shards,
            tokenizer,
            pool,
            config,
            seed,
            epoch,
            number: 0,
            at: 0,
            shard: None,
            encoded: VecDeque::new(),
            offset: 0,
            is_over: false,
            bad_lines: 0,
            of_shard: 0,
            stopped,
        };
        match block {
            Some(start) => reader.enter(start)?,
            None => reader.begin_epoch(epoch, reader.offset_of(epoch))?,
        }
        Ok(reader)
    }

    fn run(mut self, to: &SyncSender<Result<Block>>) {
        loop {
            let block = self.next_block();
            let is_last = block.is_err();
            // Nobody listens any more.
            if to.send(block).is_err() || is_last {
                return;
            }
        }
    }

    /// Files of this reader in an epoch.
    fn count(&self) -> u64 {
        let Rank { index, of } = self.config.rank;
        (self.shards.count() - index).div_ceil(of) as u64
    }

    fn open(&self, at: u64, place: ShardPlace) -> Result<Shard> {
        let Rank { index, of } = self.config.rank;
        let order = key(self.seed, self.epoch, PURPOSE_ORDER);
        let order = Permutation::new(self.shards.count() as u64, order);
        let shard = order.get(index as u64 + at * of as u64) as usize;
        self.shards.read(shard, place)
    }

    /// Goes on where a block began.
    fn enter(&mut self, start: BlockStart) -> Result<()> {
        if start.shard >= self.count() {
            return Err(Error::CursorOutOfRange {
                epoch: self.epoch,
                position: start.shard,
                windows: self.count(),
            });
        }
        (self.at, self.number) = (start.shard, start.number);
        self.shard = Some(self.open(start.shard, ShardPlace::of(start))?);
        self.drop_tokens(start.tokens)
    }

    /// Tokens that an epoch leaves out at its beginning, so that its windows begin elsewhere in their
    /// documents.
    fn offset_of(&self, epoch: u64) -> u64 {
        let starts = self.config.window as u64;
        below(key(self.seed, epoch, PURPOSE_OFFSET), starts)
    }

    fn begin_epoch(&mut self, epoch: u64, offset: u64) -> Result<()> {
        (self.epoch, self.at, self.number) = (epoch, 0, 0);
        (self.shard, self.encoded) = (None, VecDeque::new());
        (self.is_over, self.offset) = (false, offset);
        self.drop_tokens(offset)
    }

    fn drop_tokens(&mut self, mut count: u64) -> Result<()> {
        while count > 0 && self.fill()? {
            let front = &mut self.encoded[0];
            let gone = count.min((front.tokens.len() - front.used) as u64);
            front.used += gone as usize;
            count -= gone;
            self.pass();
        }
        Ok(())
    }

    /// Removes what is used up.
    fn pass(&mut self) {
        if self
            .encoded
            .front()
            .is_some_and(|e| e.used == e.tokens.len())
        {
            self.encoded.pop_front();
        }
    }

    /// The next block; that of the next epoch where this one has no more.
    fn next_block(&mut self) -> Result<Block> {
        if self.is_over {
            self.begin_epoch(self.epoch + 1, self.offset_of(self.epoch + 1))?;
        }
        let window = self.config.window;
        let whole = (self.config.buffer_tokens / window).max(1) * window;
        let mut tokens = Vec::with_capacity(whole);
        let mut start = None;
        while tokens.len() < whole && self.fill()? {
            let front = &mut self.encoded[0];
            start.get_or_insert(BlockStart {
                number: self.number,
                shard: front.shard,
                items: front.place.items,
                bytes: front.place.bytes,
                stretches: front.place.stretches,
                tokens: front.used as u64,
            });
            let taken = (whole - tokens.len()).min(front.tokens.len() - front.used);
            tokens.extend_from_slice(&front.tokens[front.used..front.used + taken]);
            front.used += taken;
            self.pass();
        }
        self.is_over = tokens.len() < whole;
        let found = tokens.len();
        tokens.truncate(found - found % window);
        match tokens.is_empty() {
            // Of barely one window nothing may be left out.
            true if self.number == 0 && self.offset > 0 => {
                self.begin_epoch(self.epoch, 0)?;
                self.next_block()
            }
            true if self.number == 0 => Err(Error::TooFewTokens {
                tokens: found,
                window,
            }),
            true => self.next_block(),
            false => {
                self.number += 1;
                Ok(Block {
                    epoch: self.epoch,
                    start,
                    tokens,
                    bad_lines: std::mem::take(&mut self.bad_lines),
                })
            }
        }
    }

    /// Encodes the next batch where no token is left; whether there is one.
    fn fill(&mut self) -> Result<bool> {
        while self.encoded.is_empty() {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::StreamEnded);
            }
            let (mut texts, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
            while bytes < BATCH_BYTES && texts.len() < BATCH_TEXTS && self.at < self.count() {
                let shard = match &mut self.shard {
                    Some(shard) => shard,
                    None => {
                        let opened = self.open(self.at, ShardPlace::default())?;
                        self.shard.insert(opened)
                    }
                };
                let next = shard.next_training()?;
                let seen = shard.bad_lines();
                self.bad_lines += seen - std::mem::replace(&mut self.of_shard, seen);
                match next {
                    Some((place, stretch)) => {
                        bytes += stretch.text.len();
                        places.push((self.at, place, stretch.ends));
                        texts.push(stretch.text);
                    }
                    None => {
                        (self.shard, self.of_shard) = (None, 0);
                        self.at += 1;
                    }
                }
            }
            if texts.is_empty() {
                return Ok(false);
            }
            let encoded = self.pool.install(|| self.tokenizer.encode_batch(texts))?;
            for (mut tokens, (shard, place, ends)) in encoded.into_iter().zip(places) {
                tokens.extend(ends.then(|| self.tokenizer.end_of_text()));
                if !tokens.is_empty() {
                    self.encoded.push_back(Encoded {
                        shard,
                        place,
                        tokens,
                        used: 0,
                    });
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "shard_stream_tests.rs"]
mod tests;
