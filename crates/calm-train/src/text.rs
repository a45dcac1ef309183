//! The text of a run: what it is evaluated on, and the windows that its stages are trained on.

use calm_data::{
    CacheDir, Corpus, Cursor, Rank, ShardStream, Shards, Split, StreamConfig, TokenStore,
    Tokenizer, WindowStream, Windows,
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
    /// Identifies corpus, tokenizer and split.
    key: String,
    /// Identifies its tokens or, where nobody has seen all of them, what they are made of.
    content: String,
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
        let streamed = |corpus: &Corpus, split: &Split| -> Result<Source> {
            let shards = corpus.shards(cache, split, data.bad_lines)?;
            Ok(Source::Streamed(shards))
        };
        let training = Training {
            key: store.key().to_owned(),
            content: store.content(),
            source: match data.stream.enabled {
                true => streamed(&Corpus::parse(&data.corpus)?, &split)?,
                false => Source::Own,
            },
        };
        let autoencoder = match data.autoencoder_corpus.is_empty() {
            true => None,
            false => {
                let corpus = fetch(&data.autoencoder_corpus, cache, observe)?;
                // Nothing is scored on it: all of it is to train on.
                let all = Split::new(0.0, 0.0, data.whole_below);
                let (own, content, source) = match data.stream.enabled {
                    true => {
                        let key = corpus.key()?;
                        (key.clone(), key, streamed(&corpus, &all)?)
                    }
                    false => {
                        let policy = data.bad_lines;
                        let tell = &mut |event| observe(Event::Tokenizing(event));
                        let store = TokenStore::prepare(
                            &corpus, cache, tokenizer, &all, policy, None, tell,
                        )?;
                        let key = store.key().to_owned();
                        (key, store.content(), Source::Encoded(store))
                    }
                };
                Some(Training {
                    key: format!("{own} for the autoencoder of {}", store.key()),
                    content: format!("{content} for the autoencoder of {}", store.content()),
                    source,
                })
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

    /// Identifies the tokens that a stage was trained on a part of.
    pub fn content(&self, stage: Stage) -> &str {
        &self.of(stage).content
    }

    /// Whether text that is encoded has a window to train on.
    pub fn check(&self, window: usize, k: usize) -> Result<()> {
        Windows::new(self.store.train(), window, k)?;
        if let Some(Source::Encoded(store)) = self.autoencoder.as_ref().map(|other| &other.source) {
            Windows::new(store.train(), window, k)?;
        }
        Ok(())
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
        fn encoded(
            store: &TokenStore,
            window: usize,
            k: usize,
            cursor: Cursor,
        ) -> Result<TrainingWindows<'_>> {
            let windows = Windows::new(store.train(), window, k)?;
            windows.check(cursor)?;
            Ok(TrainingWindows::Encoded(windows.shuffled(cursor)))
        }
        match &self.of(stage).source {
            Source::Own => encoded(&self.store, window, k, cursor),
            Source::Encoded(store) => encoded(store, window, k, cursor),
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
