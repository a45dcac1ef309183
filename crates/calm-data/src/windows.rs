//! Chunk-aligned windows over a token stream, and the cursor that resumes them exactly.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::permutation::{Permutation, below, key};

pub(crate) const PURPOSE_OFFSET: u64 = 1;
pub(crate) const PURPOSE_ORDER: u64 = 2;

/// Where a [`WindowStream`] or a [`ShardStream`](crate::ShardStream) stands: everything needed to go on
/// with the same windows.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Seed of the shuffle.
    pub seed: u64,
    /// Epoch of the next window, from 0.
    pub epoch: u64,
    /// Windows already taken, of that epoch or, where there is one, of its block.
    pub position: u64,
    /// The block of a stream from shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockStart>,
}

/// Where a block of windows begins in the files of a corpus.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct BlockStart {
    /// Blocks of the epoch before it.
    pub number: u64,
    /// Place of its first file in the order of the epoch.
    pub shard: u64,
    /// Pieces of that file before the work that it begins in; of JSON Lines the lines, of Parquet the
    /// rows.
    pub items: u64,
    /// Bytes before them, decompressed, where the reader can begin at one; else 0.
    pub bytes: u64,
    /// Stretches of that work before it.
    pub stretches: u64,
    /// Tokens of the next stretch before it.
    pub tokens: u64,
}

impl Cursor {
    /// The beginning of epoch 0.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            epoch: 0,
            position: 0,
            block: None,
        }
    }
}

/// Windows of a fixed number of tokens over one stream, never padded.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a> {
    tokens: &'a [u32],
    window: usize,
    chunk: usize,
}

impl<'a> Windows<'a> {
    /// Windows of `window` tokens, each of `window / chunk` chunks.
    ///
    /// # Errors
    /// [`Error::WindowNotMultiple`] unless `window` is a positive multiple of `chunk`,
    /// [`Error::TooFewTokens`] where the stream is shorter than one window.
    pub fn new(tokens: &'a [u32], window: usize, chunk: usize) -> Result<Self> {
        if chunk == 0 || window == 0 || !window.is_multiple_of(chunk) {
            return Err(Error::WindowNotMultiple { window, chunk });
        }
        if tokens.len() < window {
            return Err(Error::TooFewTokens {
                tokens: tokens.len(),
                window,
            });
        }
        Ok(Self {
            tokens,
            window,
            chunk,
        })
    }

    /// Window length in tokens.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Chunk size K in tokens.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Number of non-overlapping windows from the start of the stream, at least 1.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.window
    }

    /// All windows of [`Windows::count`], in order, non-overlapping, from the first token: for
    /// evaluation.
    pub fn sequential(&self) -> impl ExactSizeIterator<Item = &'a [u32]> + use<'a> {
        self.tokens.chunks_exact(self.window)
    }

    /// Checks that `cursor` points into an epoch of this stream, as a saved one does unless the
    /// stream, the window or the seed has changed.
    ///
    /// # Errors
    /// [`Error::CursorOutOfRange`].
    pub fn check(&self, cursor: Cursor) -> Result<()> {
        let Cursor {
            epoch, position, ..
        } = cursor;
        let windows = Epoch::of(self, cursor).windows;
        if position < windows {
            Ok(())
        } else {
            Err(Error::CursorOutOfRange {
                epoch,
                position,
                windows,
            })
        }
    }

    /// Endless shuffled windows for training, from `cursor` on. A cursor behind the end of its
    /// epoch goes on with the next epoch (see [`Windows::check`]).
    pub fn shuffled(self, cursor: Cursor) -> WindowStream<'a> {
        let epoch = Epoch::of(&self, cursor);
        let mut stream = WindowStream {
            windows: self,
            cursor,
            epoch,
        };
        stream.wrap();
        stream
    }
}

/// One pass over the stream: windows tile it from a start that differs between epochs, so that
/// documents begin anywhere in a chunk.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    offset: usize,
    windows: u64,
    order: Permutation,
}

impl Epoch {
    fn of(windows: &Windows<'_>, Cursor { seed, epoch, .. }: Cursor) -> Self {
        let length = windows.tokens.len();
        // A stream of barely one window leaves fewer starts than the window has tokens.
        let starts = windows.window.min(length - windows.window + 1);
        let offset = below(key(seed, epoch, PURPOSE_OFFSET), starts as u64) as usize;
        let count = ((length - offset) / windows.window) as u64;
        let order = Permutation::new(count, key(seed, epoch, PURPOSE_ORDER));
        Self {
            offset,
            windows: count,
            order,
        }
    }
}

/// Endless shuffled windows: every window of an epoch exactly once, in an order computed from
/// (seed, epoch), so that nothing but the [`Cursor`] has to be kept.
#[derive(Debug, Clone)]
pub struct WindowStream<'a> {
    windows: Windows<'a>,
    cursor: Cursor,
    epoch: Epoch,
}

impl<'a> WindowStream<'a> {
    /// The next window, `[window]` tokens.
    pub fn next_window(&mut self) -> &'a [u32] {
        let index = self.epoch.order.get(self.cursor.position) as usize;
        let start = self.epoch.offset + index * self.windows.window;
        self.cursor.position += 1;
        self.wrap();
        &self.windows.tokens[start..start + self.windows.window]
    }

    /// The next `batch` windows, row-major `[batch, window]`.
    pub fn next_batch(&mut self, batch: usize) -> Vec<u32> {
        let mut rows = Vec::with_capacity(batch * self.windows.window);
        for _ in 0..batch {
            rows.extend_from_slice(self.next_window());
        }
        rows
    }

    /// Where the stream stands: [`Windows::shuffled`] with it gives exactly the windows that
    /// follow here.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn wrap(&mut self) {
        if self.cursor.position >= self.epoch.windows {
            self.cursor.epoch = self.cursor.epoch.wrapping_add(1);
            self.cursor.position = 0;
            self.epoch = Epoch::of(&self.windows, self.cursor);
        }
    }
}

/// How often each id below `vocab` occurs in `tokens`: `[vocab]` counts. Ids of `vocab` and above
/// are not counted.
pub fn unigram(tokens: &[u32], vocab: usize) -> Vec<u64> {
    let mut counts = vec![0; vocab];
    for &token in tokens {
        if let Some(count) = counts.get_mut(token as usize) {
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(length: usize) -> Vec<u32> {
        (0..length as u32).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn an_epoch_visits_every_window_once(
            chunk in 1_usize..5, chunks in 1_usize..5, extra in 0_usize..200, seed in any::<u64>(),
        ) {
            let window = chunk * chunks;
            let tokens = stream(window + extra);
            let mut stream =
                Windows::new(&tokens, window, chunk).unwrap().shuffled(Cursor::new(seed));
            for epoch in 0..3 {
                let mut starts = Vec::new();
                while stream.cursor().epoch == epoch {
                    let row = stream.next_window();
                    prop_assert_eq!(row.len(), window);
                    prop_assert!(row.windows(2).all(|w| w[1] == w[0] + 1));
                    starts.push(row[0] as usize);
                }
                starts.sort_unstable();
                let offset = starts[0];
                prop_assert!(offset < window);
                let tiled: Vec<_> = (0..starts.len()).map(|i| offset + i * window).collect();
                prop_assert_eq!(&starts, &tiled);
                // Complete: no further window fits behind the last.
                prop_assert!(offset + (starts.len() + 1) * window > tokens.len());
            }
        }

        #[test]
        fn a_resumed_stream_goes_on_exactly(
            length in 8_usize..300, taken in 0_usize..200, seed in any::<u64>(),
        ) {
            let tokens = stream(length);
            let windows = Windows::new(&tokens, 8, 4).unwrap();
            let mut whole = windows.shuffled(Cursor::new(seed));
            for _ in 0..taken {
                whole.next_window();
            }
            let saved = serde_json::to_string(&whole.cursor()).unwrap();
            let cursor: Cursor = serde_json::from_str(&saved).unwrap();
            prop_assert!(windows.check(cursor).is_ok());
            let mut resumed = windows.shuffled(cursor);
            for _ in 0..50 {
                prop_assert_eq!(whole.next_window(), resumed.next_window());
                prop_assert_eq!(whole.cursor(), resumed.cursor());
            }
        }
    }

    #[test]
    fn epochs_differ_in_start_and_order() {
        let tokens = stream(1000);
        let mut stream = Windows::new(&tokens, 16, 4)
            .unwrap()
            .shuffled(Cursor::new(3));
        let mut offsets = std::collections::BTreeSet::new();
        for epoch in 0..64 {
            while stream.cursor().epoch == epoch {
                offsets.insert(stream.next_window()[0] % 16);
            }
        }
        // All 16 starts but for a stroke of luck: 64 epochs miss a given one with 1.6 %.
        assert!(offsets.len() >= 13, "{offsets:?}");
    }

    #[test]
    fn the_order_is_pinned() {
        // A change here would break the exact resumption of every run on disk.
        let tokens = stream(40);
        let mut stream = Windows::new(&tokens, 4, 2)
            .unwrap()
            .shuffled(Cursor::new(11));
        let starts: Vec<_> = (0..12).map(|_| stream.next_window()[0]).collect();
        assert_eq!(starts, PINNED);
    }

    const PINNED: [u32; 12] = [2, 30, 26, 18, 14, 22, 6, 34, 10, 18, 6, 2];

    #[test]
    fn a_batch_is_rows_of_windows() {
        let tokens = stream(100);
        let windows = Windows::new(&tokens, 6, 3).unwrap();
        let mut by_row = windows.shuffled(Cursor::new(5));
        let rows: Vec<u32> = (0..20)
            .flat_map(|_| by_row.next_window().to_vec())
            .collect();
        let mut by_batch = windows.shuffled(Cursor::new(5));
        let mut batches = by_batch.next_batch(7);
        batches.extend(by_batch.next_batch(13));
        assert_eq!(rows, batches);
        assert_eq!(by_row.cursor(), by_batch.cursor());
    }

    #[test]
    fn sequential_windows_tile_from_the_start() {
        let tokens = stream(11);
        let windows = Windows::new(&tokens, 4, 2).unwrap();
        let rows: Vec<_> = windows.sequential().collect();
        assert_eq!(rows, [&[0, 1, 2, 3], &[4, 5, 6, 7]]);
        assert_eq!(windows.count(), 2);
    }

    #[test]
    fn bad_sizes_are_errors_with_their_numbers() {
        let tokens = stream(10);
        for (window, chunk) in [(6, 4), (0, 4), (4, 0), (2, 4)] {
            let error = Windows::new(&tokens, window, chunk).unwrap_err();
            assert!(matches!(error, Error::WindowNotMultiple { .. }), "{error}");
        }
        let error = Windows::new(&tokens, 12, 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "10 tokens do not fill one window of 12: use more text or a shorter window"
        );
        assert!(Windows::new(&tokens, 10, 5).is_ok());
    }

    #[test]
    fn a_cursor_of_another_stream_is_found_out() {
        let tokens = stream(40);
        let windows = Windows::new(&tokens, 4, 2).unwrap();
        let foreign = Cursor {
            seed: 1,
            epoch: 2,
            position: 500,
            block: None,
        };
        assert!(matches!(
            windows.check(foreign),
            Err(Error::CursorOutOfRange {
                epoch: 2,
                position: 500,
                ..
            })
        ));
        assert_eq!(
            windows.shuffled(foreign).cursor(),
            Cursor {
                epoch: 3,
                ..Cursor::new(1)
            }
        );
    }

    #[test]
    fn unigram_counts() {
        assert_eq!(unigram(&[0, 2, 2, 5], 3), [1, 0, 2]);
    }
}
