//! From corpus names to token streams.

use std::path::Path;

use calm_data::{CacheDir, Corpus, TokenStore, Tokenizer};

use crate::config::DataConfig;
use crate::event::{Event, Observer};
use crate::{Error, Result};

/// Fetches the corpus and trains a tokenizer on its training documents, or loads the given one.
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
    observe(Event::TrainingTokenizer { vocab_size });
    let split = data.split();
    split.validate()?;
    // Held-out text must not shape the vocabulary.
    let documents = corpus.documents(cache, data.bad_lines)?.filter(|document| {
        document
            .as_ref()
            .map_or(true, |document| !split.is_heldout(&document.text))
    });
    Ok(Tokenizer::train_on_documents(documents, vocab_size)?)
}

/// Fetches the corpus and opens its token streams, encoding them at first use.
///
/// # Errors
/// Those of the corpus and of the token cache.
pub fn token_store(
    data: &DataConfig,
    tokenizer: &Tokenizer,
    cache: &CacheDir,
    observe: Observer<'_>,
) -> Result<TokenStore> {
    let corpus = fetch(data, cache, observe)?;
    let store = TokenStore::prepare(
        &corpus,
        cache,
        tokenizer,
        data.split(),
        data.bad_lines,
        &mut |progress| observe(Event::Tokenizing(progress)),
    )?;
    observe(Event::DataReady {
        train_tokens: store.train().len() as u64,
        heldout_tokens: store.heldout().len() as u64,
        bad_lines: store.bad_lines(),
    });
    Ok(store)
}

fn fetch(data: &DataConfig, cache: &CacheDir, observe: Observer<'_>) -> Result<Corpus> {
    let corpus = Corpus::parse(&data.corpus)?;
    corpus.fetch(cache, &mut |event| observe(Event::Fetch(event)))?;
    Ok(corpus)
}
