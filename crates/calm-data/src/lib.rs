//! Text to token ids to chunk-aligned windows: tokenizers, corpora, streaming readers, a resumable
//! cursor.
//!
//! A [`Corpus`] is fetched into a [`CacheDir`] and read as [`Stretches`], each in the [`Part`] that a
//! [`Split`] gives it; a [`Tokenizer`] turns them into a memory-mapped [`TokenStore`] with a stream
//! for each part; [`Windows`] cut a stream into rows for training and evaluation. Text beyond what is
//! worth encoding first is read as [`Shards`], whose [`ShardStream`] encodes ahead of the training. No
//! tensor library is linked, and nothing prints.
//!
//! ```
//! use calm_data::{Cursor, Tokenizer, Windows};
//!
//! let text = "It was the best of times, it was the worst of times. ".repeat(20);
//! let tokenizer = Tokenizer::train([text.clone()].into_iter(), 300)?;
//! let tokens = tokenizer.encode(&text)?;
//! assert_eq!(tokenizer.decode(&tokens)?, text);
//!
//! // Windows of 8 tokens, which are 2 chunks of K = 4; any cursor can be saved and resumed.
//! let mut stream = Windows::new(&tokens, 8, 4)?.shuffled(Cursor::new(42));
//! let batch = stream.next_batch(2);
//! assert_eq!(batch.len(), 2 * 8);
//! assert_eq!(stream.cursor(), Cursor { position: 2, ..Cursor::new(42) });
//! # Ok::<(), calm_data::Error>(())
//! ```

mod cache;
mod corpus;
mod error;
mod files;
mod permutation;
mod shard_stream;
mod special_tokens;
mod split;
mod store;
mod store_header;
mod stream;
mod tokenizer;
mod windows;
mod words;

pub use cache::CacheDir;
pub use corpus::{
    BadLinePolicy, Corpus, FetchEvent, FetchState, Fetcher, Named, Sample, Shards, Source, Stretch,
    Stretches,
};
pub use error::{Error, Result};
pub use files::sha256_file;
pub use shard_stream::{Rank, ShardStream, StreamConfig};
pub use special_tokens::SpecialTokens;
pub use split::{Part, Split};
pub use store::{PrepareEvent, PrepareProgress, TokenStore};
pub use stream::TokenStreamDecoder;
pub use tokenizer::{END_OF_TEXT, Tokenizer};
pub use windows::{BlockStart, Cursor, WindowStream, Windows, unigram};
