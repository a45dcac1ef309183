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
    let corpus = fetch(&data.corpus, cache, observe)?;
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
/// spread sample of 8 MiB where the corpus is larger, and of text that is streamed the beginnings of
/// the files; or loads the given one.
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
    let corpus = fetch(&data.corpus, cache, observe)?;
    // Held-out text must not shape the vocabulary.
    let (split, policy) = (data.split(), data.bad_lines);
    let sample = match data.stream.enabled {
        true => corpus.training_heads(cache, &split, policy, TOKENIZER_BYTES)?,
        false => {
            let on_progress = &mut |bytes_read, bytes_total| {
                observe(Event::ReadingText {
                    bytes_read,
                    bytes_total,
                });
            };
            corpus.training_sample(cache, &split, policy, TOKENIZER_BYTES, on_progress)?
        }
    };
    observe(Event::TrainingTokenizer {
        vocab_size,
        sample_bytes: sample.bytes,
        text_bytes: sample.of,
    });
    Ok(Tokenizer::train(sample.texts.into_iter(), vocab_size)?)
}

/// Fetches the corpus and opens its token streams, encoding them at first use; of text that is
/// streamed the beginning of each part.
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
    let corpus = fetch(&data.corpus, cache, observe)?;
    let at_most = data.stream.enabled.then_some(data.stream.sample_tokens);
    let store = TokenStore::prepare(
        &corpus,
        cache,
        tokenizer,
        split,
        data.bad_lines,
        at_most,
        &mut |event| observe(Event::Tokenizing(event)),
    )?;
    observe(Event::DataReady {
        streamed: data.stream.enabled,
        tokens: Part::ALL.map(|part| store.part(part).len() as u64),
        bad_lines: store.bad_lines(),
    });
    Ok(store)
}

/// The last `length` tokens of the first text in a stream that is long enough to have them, its
/// end-of-text included: what is read in front of a prompt. Where no text ends, as in a stream of
/// one, the first tokens of the stream.
pub(crate) fn lead_in(stream: &[u32], end_of_text: u32, length: usize) -> Vec<u32> {
    let is_end = |tokens: &&[u32]| {
        let (last, before) = tokens.split_last().expect("windows are not empty");
        *last == end_of_text && !before.contains(&end_of_text)
    };
    let found = stream.windows(length).find(is_end);
    found
        .unwrap_or(&stream[..length.min(stream.len())])
        .to_vec()
}

pub(crate) fn fetch(names: &[String], cache: &CacheDir, observe: Observer<'_>) -> Result<Corpus> {
    let corpus = Corpus::parse(names)?;
    corpus.fetch(cache, &mut |event| observe(Event::Fetch(event)))?;
    Ok(corpus)
}

#[cfg(test)]
mod tests {
    use super::lead_in;

    #[test]
    fn a_lead_in_is_the_end_of_one_text() {
        // 0 ends a text. The first is too short, and its end must not stand inside another's.
        let stream = [5, 0, 7, 8, 0, 1, 2, 3, 4, 0, 9];
        assert_eq!(lead_in(&stream, 0, 2), [5, 0]);
        assert_eq!(lead_in(&stream, 0, 3), [7, 8, 0]);
        assert_eq!(lead_in(&stream, 0, 4), [2, 3, 4, 0]);
        assert_eq!(lead_in(&stream, 6, 3), [5, 0, 7]);
        assert_eq!(lead_in(&stream[..2], 6, 3), [5, 0]);
    }
}
