//! The text of a run: what it is evaluated on, and the windows that its stages are trained on.

use calm_data::{
    CacheDir, Corpus, Cursor, Part, Rank, ShardStream, Shards, StreamConfig, TokenStore, Tokenizer,
    WindowStream, Windows,
};
use calm_records::Stage;

use crate::Result;
use crate::config::DataConfig;
use crate::data::{fetch, token_store};
use crate::event::{Event, Observer};

/// The text of a run.
pub(crate) struct Text {
    /// Encoded text: all of it or, where it is streamed, the beginning of each part.
    pub store: TokenStore,
    training: Training,
    /// Text for the autoencoder alone.
    autoencoder: Option<Training>,
    buffer_tokens: usize,
}

/// Text to train on.
struct Training {
    /// Identifies it.
    key: String,
    source: Source,
}

enum Source {
    /// The training part of [`Text::store`].
    Own,
    Encoded(TokenStore),
    Streamed(Shards),
}

impl Text {
    /// Fetches the corpora and encodes what is to be encoded first.
    pub fn open(
        data: &DataConfig,
        tokenizer: &Tokenizer,
        cache: &CacheDir,
        observe: Observer<'_>,
    ) -> Result<Self> {
        let split = data.split();
        let store = token_store(data, &split, tokenizer, cache, observe)?;
        let shards = |corpus: &Corpus| -> Result<Source> {
            let shards = corpus.shards(cache, &split, data.bad_lines)?;
            Ok(Source::Streamed(shards))
        };
        let source = match data.stream.enabled {
            true => shards(&Corpus::parse(&data.corpus)?)?,
            false => Source::Own,
        };
        let training = Training {
            key: store.key().to_owned(),
            source,
        };
        let autoencoder = match data.autoencoder_corpus.is_empty() {
            true => None,
            false => {
                let other = DataConfig {
                    corpus: data.autoencoder_corpus.clone(),
                    ..data.clone()
                };
                let corpus = fetch(&other, cache, observe)?;
                let (own, source) = match data.stream.enabled {
                    true => (corpus.key()?, shards(&corpus)?),
                    false => {
                        let store = token_store(&other, &split, tokenizer, cache, observe)?;
                        (store.key().to_owned(), Source::Encoded(store))
                    }
                };
                let key = format!("{} for the autoencoder of {}", own, store.key());
                Some(Training { key, source })
            }
        };
        Ok(Self {
            store,
            training,
            autoencoder,
            buffer_tokens: data.stream.buffer_tokens,
        })
    }

    fn of(&self, stage: Stage) -> &Training {
        match (stage, &self.autoencoder) {
            (Stage::Autoencoder, Some(other)) => other,
            _ => &self.training,
        }
    }

    /// Identifies the text of a stage: corpus, tokenizer, split.
    pub fn key(&self, stage: Stage) -> &str {
        &self.of(stage).key
    }

    /// The windows of a stage from `cursor` on, `window` tokens in chunks of `k`.
    pub fn windows(
        &self,
        stage: Stage,
        tokenizer: &Tokenizer,
        window: usize,
        k: usize,
        cursor: Cursor,
    ) -> Result<TrainingWindows<'_>> {
        let encoded = |store| -> Result<TrainingWindows<'_>> {
            let windows = Windows::new(TokenStore::part(store, Part::Train), window, k)?;
            windows.check(cursor)?;
            Ok(TrainingWindows::Encoded(windows.shuffled(cursor)))
        };
        match &self.of(stage).source {
            Source::Own => encoded(&self.store),
            Source::Encoded(store) => encoded(store),
            Source::Streamed(shards) => {
                let config = StreamConfig {
                    window,
                    chunk: k,
                    buffer_tokens: self.buffer_tokens,
                    // One process feeds all devices of a run.
                    rank: Rank::ONLY,
                };
                let stream = shards.clone().stream(tokenizer, config, cursor)?;
                Ok(TrainingWindows::Streamed(stream))
            }
        }
    }
}

/// Endless shuffled windows to train on.
pub(crate) enum TrainingWindows<'a> {
    Encoded(WindowStream<'a>),
    Streamed(ShardStream),
}

impl TrainingWindows<'_> {
    /// The next `batch` windows, row-major `[batch, window]`.
    pub fn next_batch(&mut self, batch: usize) -> Result<Vec<u32>> {
        Ok(match self {
            Self::Encoded(windows) => windows.next_batch(batch),
            Self::Streamed(windows) => windows.next_batch(batch)?,
        })
    }

    /// Where the text goes on.
    pub fn cursor(&self) -> Cursor {
        match self {
            Self::Encoded(windows) => windows.cursor(),
            Self::Streamed(windows) => windows.cursor(),
        }
    }

    /// Tells of lines that were skipped while text was streamed.
    pub fn tell_bad_lines(&self, observe: Observer<'_>) {
        if let Self::Streamed(windows) = self {
            match windows.bad_lines() {
                0 => {}
                lines => observe(Event::BadLines(lines)),
            }
        }
    }
}
