//! From corpus names to token streams.

use std::path::Path;

use calm_data::{CacheDir, Corpus, Part, Split, TokenStore, Tokenizer};

use crate::config::DataConfig;
use crate::event::{Event, Observer};
use crate::{Error, Result};

/// Fetches the corpus and gives `data` the split that serves it: the one asked for, unless the text
/// is little ([`Corpus::fit_split`]). A validation or test part is to hold about four windows.
///
/// # Errors
/// Those of the corpus.
pub fn fit_split(
    data: &mut DataConfig,
    window: usize,
    cache: &CacheDir,
    observe: Observer<'_>,
) -> Result<()> {
    let corpus = fetch(data, cache, observe)?;
    let (asked, least_bytes) = (data.split(), (4 * window * BYTES_PER_TOKEN) as u64);
    let split = corpus.fit_split(cache, &asked, data.bad_lines, least_bytes)?;
    if split != asked {
        observe(Event::LittleText(&split));
    }
    data.set_split(&split);
    Ok(())
}

/// Of English text, with some thousand tokens.
const BYTES_PER_TOKEN: usize = 4;

/// A tokenizer is trained on so much of the text at most. In the worst case, a text without spaces
/// in which no 32 characters come twice, its training takes 100 bytes of memory for each of these.
const TOKENIZER_BYTES: u64 = 8 << 20;

/// Fetches the corpus and trains a tokenizer on its training part, of which it takes an evenly
/// spread sample of 8 MiB where the corpus is larger; or loads the given one.
///
/// # Errors
/// Those of the corpus and of the tokenizer.
pub fn tokenizer(
    data: &DataConfig,
    vocab_size: usize,
    cache: &CacheDir,
    observe: Observer<'_>,
) -> Result<Tokenizer> {
    if !data.tokenizer.is_empty() {
        let tokenizer = Tokenizer::load(Path::new(&data.tokenizer))?;
        if tokenizer.vocab_size() != vocab_size {
            return Err(Error::VocabularyMismatch {
                tokenizer: data.tokenizer.clone(),
                got: tokenizer.vocab_size(),
                expected: vocab_size,
            });
        }
        return Ok(tokenizer);
    }
    let corpus = fetch(data, cache, observe)?;
    // Held-out text must not shape the vocabulary.
    let sample = corpus.training_sample(
        cache,
        &data.split(),
        data.bad_lines,
        TOKENIZER_BYTES,
        &mut |bytes_read, bytes_total| {
            observe(Event::ReadingText {
                bytes_read,
                bytes_total,
            });
        },
    )?;
    observe(Event::TrainingTokenizer {
        vocab_size,
        sample_bytes: sample.bytes,
        text_bytes: sample.of,
    });
    Ok(Tokenizer::train(sample.texts.into_iter(), vocab_size)?)
}

/// Fetches the corpus and opens its token streams, encoding them at first use.
///
/// # Errors
/// Those of the corpus and of the token cache.
pub fn token_store(
    data: &DataConfig,
    split: &Split,
    tokenizer: &Tokenizer,
    cache: &CacheDir,
    observe: Observer<'_>,
) -> Result<TokenStore> {
    let corpus = fetch(data, cache, observe)?;
    let store = TokenStore::prepare(
        &corpus,
        cache,
        tokenizer,
        split,
        data.bad_lines,
        &mut |event| observe(Event::Tokenizing(event)),
    )?;
    observe(Event::DataReady {
        tokens: Part::ALL.map(|part| store.part(part).len() as u64),
        bad_lines: store.bad_lines(),
    });
    Ok(store)
}

fn fetch(data: &DataConfig, cache: &CacheDir, observe: Observer<'_>) -> Result<Corpus> {
    let corpus = Corpus::parse(&data.corpus)?;
    corpus.fetch(cache, &mut |event| observe(Event::Fetch(event)))?;
    Ok(corpus)
}
