//! What a run tells whoever watches; nothing prints from here.

use std::path::Path;

use calm_data::{FetchEvent, PrepareEvent, Split};
use calm_records::{EvalPoint, MetricRow, SampleText, Stage, Summary};

use crate::Precision;

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A corpus is being fetched.
    Fetch(FetchEvent),
    /// The corpus is being read, for a sample to train the tokenizer on.
    ReadingText {
        /// Bytes of the files read so far.
        bytes_read: u64,
        /// Bytes of the files in all.
        bytes_total: u64,
    },
    /// The tokenizer is being trained.
    TrainingTokenizer {
        /// Tokens of the vocabulary.
        vocab_size: usize,
        /// Bytes of the text that it is trained on.
        sample_bytes: u64,
        /// Bytes of the training part in all, where all of it was read.
        text_bytes: Option<u64>,
    },
    /// The text is little, and is split in this way instead of the one asked for.
    LittleText(&'a Split),
    /// The corpus is being turned into token ids.
    Tokenizing(PrepareEvent),
    /// The text is ready.
    DataReady {
        /// Whether the text is encoded while it is trained on, and this is the beginning of each part.
        streamed: bool,
        /// Tokens to train on, to make choices on, and to report on.
        tokens: [u64; 3],
        /// JSONL lines that were skipped as bad.
        bad_lines: u64,
    },
    /// JSONL lines that were skipped as bad in a stage whose text is streamed.
    BadLines(u64),
    /// The processor lacks products of the precision that was asked for, and makes them in f32.
    PrecisionLacking(Precision),
    /// A checkpoint can't be used, and the newest valid one is taken in its place.
    PassedOver {
        /// What is wrong with it.
        error: &'a calm_lm::Error,
        /// What is taken.
        taken: &'a Path,
    },
    /// A stage begins, or goes on after `from` steps.
    StageStarted {
        /// Which.
        stage: Stage,
        /// Steps done already.
        from: u64,
        /// Steps in all.
        steps: u64,
        /// Parameters that are trained.
        parameters: u64,
    },
    /// A step was made.
    Stepped {
        /// Which stage.
        stage: Stage,
        /// Steps done.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Tokens per second of this step.
        tokens_per_s: f64,
    },
    /// A line was added to metrics.jsonl.
    Logged(&'a MetricRow),
    /// An evaluation on the way.
    Evaluated(&'a EvalPoint),
    /// A checkpoint was written.
    Saved(&'a Path),
    /// The final evaluation goes on.
    Scoring {
        /// Windows done.
        done: usize,
        /// Windows in all.
        of: usize,
    },
    /// A sample text was written.
    Sampled(&'a SampleText),
    /// The run is complete.
    Finished(&'a Summary),
}

/// Receives events.
pub type Observer<'a> = &'a mut dyn FnMut(Event<'_>);
