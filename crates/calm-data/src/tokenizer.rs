//! Byte-level BPE: training, loading, encoding and decoding over the `tokenizers` library.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Inner};

use crate::error::{Error, Result};
use crate::files::hex;
use crate::special_tokens::SpecialTokens;
use crate::words::{GPT_2, Words};

/// The end-of-text token of tokenizers trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// End-of-text tokens of loaded tokenizers, in the order in which they are looked for: GPT-2's,
/// Llama 3's, Llama 2's.
const END_OF_TEXT_NAMES: [&str; 3] = [END_OF_TEXT, "<|end_of_text|>", "</s>"];

/// A word of more characters is split after so many: scripts without spaces make words of whole
/// sentences, which no merge is learned from that another text could use.
const LONGEST_WORD: usize = 32;

/// The 256 bytes and end-of-text.
const SMALLEST_VOCABULARY: usize = 257;

/// Texts that are worth [encoding](Tokenizer::encode_batch) in one go: enough to keep all cores busy,
/// little enough to be no burden.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
pub(crate) const BATCH_TEXTS: usize = 1 << 10;

/// Text to token ids and back, with one end-of-text token.
///
/// Text never becomes a special token: a text that spells out `<|endoftext|>` is encoded as those
/// characters.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Inner,
    /// What makes encoding fast, where it can be.
    words: Option<Arc<Words>>,
    end_of_text: u32,
    /// Whether the end of a text is another than the names of known ones tell.
    end_is_stated: bool,
    vocab_size: usize,
    fingerprint: String,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("end_of_text", &self.end_of_text)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Trains a byte-level BPE of at most `vocab_size` tokens: the 256 bytes first, then merges of
    /// pairs seen at least twice, then [`END_OF_TEXT`] as the last id. Little text gives a smaller
    /// vocabulary. The same texts in any order give the same tokenizer. Words are those of GPT-2,
    /// of 32 characters at most, in training and encoding alike (it stands in `tokenizer.json`).
    ///
    /// # Errors
    /// [`Error::VocabTooSmall`] below 257 tokens, [`Error::EmptyTrainingText`] where the texts hold
    /// no character, [`Error::Tokenize`] where the library fails.
    pub fn train<I>(texts: I, vocab_size: usize) -> Result<Self>
    where
        I: Iterator<Item = String> + Send,
    {
        if vocab_size < SMALLEST_VOCABULARY {
            return Err(Error::VocabTooSmall { vocab_size });
        }
        let mut inner = Inner::new(BPE::default());
        let split = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        };
        let bytes = ByteLevel::new(false, true, false);
        let steps = vec![
            split(GPT_2).map_err(failed("train"))?.into(),
            split(&format!(r"[\s\S]{{{LONGEST_WORD}}}"))
                .map_err(failed("train"))?
                .into(),
            bytes.into(),
        ];
        inner
            .with_pre_tokenizer(Some(Sequence::new(steps)))
            .with_decoder(Some(bytes));
        let mut trainer = TrainerWrapper::from(
            BpeTrainerBuilder::new()
                .vocab_size(vocab_size - 1)
                .min_frequency(2)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .show_progress(false)
                .build(),
        );
        let any = AtomicBool::new(false);
        let texts = texts.inspect(|text| {
            if !text.is_empty() {
                any.store(true, Ordering::Relaxed);
            }
        });
        inner.train(&mut trainer, texts).map_err(failed("train"))?;
        if !any.into_inner() {
            return Err(Error::EmptyTrainingText);
        }
        // Added last: ids 0..=255 stay plain bytes, so that no code path takes id 0 for the end.
        inner.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
        let end_of_text = inner
            .token_to_id(END_OF_TEXT)
            .ok_or_else(|| Error::Tokenize {
                action: "train",
                reason: format!("{END_OF_TEXT} was not added"),
            })?;
        Self::finish(inner, end_of_text)
    }

    /// Loads any `tokenizer.json`, or the one in a directory. What a `tokenizer_config.json` beside it
    /// says counts: its `eos_token` ends texts, and tokens that it adds are added. Otherwise the
    /// vocabulary must have an end-of-text token (`<|endoftext|>`, `<|end_of_text|>` or `</s>`, in this
    /// order). Truncation and padding stored in the file are switched off.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::BadTokenizer`] where a file does not parse or the two contradict each
    /// other, [`Error::NoEndOfText`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_with_end(path, None)
    }

    /// The same with the id that ends a text where no `tokenizer_config.json` says it: of a released
    /// model, whose config.json does.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn load_with_end(path: &Path, end_of_text: Option<u32>) -> Result<Self> {
        let path = match path.is_dir() {
            true => &path.join("tokenizer.json"),
            false => path,
        };
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let bad = |reason: &str| Error::BadTokenizer {
            path: path.to_path_buf(),
            reason: one_line(reason),
        };
        let library = |e: tokenizers::Error| bad(&e.to_string());
        let mut inner = Inner::from_bytes(&bytes).map_err(library)?;
        inner.with_truncation(None).map_err(library)?;
        inner.with_padding(None);
        let special = SpecialTokens::beside(path)?;
        // Together: the library prepares its search anew at each call.
        let new = special
            .added()
            .filter(|(text, ..)| inner.token_to_id(text).is_none());
        let new = new.map(|(text, _, is_special)| AddedToken::from(text, is_special));
        let new: Vec<_> = new.collect();
        inner.add_tokens(&new);
        for (text, id, _) in special.added() {
            if inner.token_to_id(text) != Some(id) {
                let reason =
                    format!("tokenizer_config.json gives {text:?} the id {id}, which is not its");
                return Err(bad(&reason));
            }
        }
        let known = || {
            END_OF_TEXT_NAMES
                .iter()
                .find_map(|name| inner.token_to_id(name))
        };
        let end_of_text = match special.end_of_text() {
            Some(name) => inner.token_to_id(name).ok_or_else(|| {
                bad(&format!(
                    "tokenizer_config.json ends texts with {name:?}, which is no token"
                ))
            })?,
            None => end_of_text
                .filter(|&id| inner.id_to_token(id).is_some())
                .or_else(known)
                .ok_or_else(|| Error::NoEndOfText {
                    path: path.to_path_buf(),
                    expected: END_OF_TEXT_NAMES.join(", "),
                })?,
        };
        Self::finish(inner, end_of_text)
    }

    fn finish(mut inner: Inner, end_of_text: u32) -> Result<Self> {
        inner.set_encode_special_tokens(true);
        // Ids may have gaps in a loaded file: tables are sized by the largest id.
        let largest = inner
            .get_vocab(true)
            .into_values()
            .max()
            .unwrap_or(end_of_text);
        let mut serialized = inner.to_string(false).map_err(failed("serialize"))?;
        let mut known = END_OF_TEXT_NAMES.iter();
        let stated = known.find_map(|name| inner.token_to_id(name)) != Some(end_of_text);
        if stated {
            serialized.push_str(&format!("\nend of text: {end_of_text}"));
        }
        Ok(Self {
            words: Words::of(&inner).map(Arc::new),
            inner,
            end_of_text,
            end_is_stated: stated,
            vocab_size: largest as usize + 1,
            fingerprint: hex(&Sha256::digest(serialized.as_bytes())),
        })
    }

    /// The same for a model with a vocabulary that may be larger: ids which are no token of this one
    /// have no text. Special tokens beyond the model's, such as an added padding, are never met, because
    /// no text becomes one.
    ///
    /// # Errors
    /// [`Error::VocabTooLarge`] where text may become a token that the model lacks, or ends with one.
    pub fn for_vocabulary(mut self, vocab_size: usize) -> Result<Self> {
        let special = self.inner.get_added_tokens_decoder();
        let is_special = |id: u32| special.get(&id).is_some_and(|token| token.special);
        let lacks = |id: u32| id as usize >= vocab_size && !is_special(id);
        let vocabulary = self.inner.get_vocab(true);
        let beyond = vocab_size < self.vocab_size && vocabulary.into_values().any(lacks);
        if beyond || self.end_of_text as usize >= vocab_size {
            return Err(Error::VocabTooLarge {
                tokenizer: self.vocab_size,
                model: vocab_size,
            });
        }
        self.vocab_size = vocab_size;
        Ok(self)
    }

    /// Writes `tokenizer.json` atomically, and where the end of a text is not the one that would be found
    /// in it, a `tokenizer_config.json` beside it that says so.
    ///
    /// # Errors
    /// [`Error::Io`]; the old file, if any, is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self.inner.to_string(true).map_err(failed("serialize"))?;
        if self.end_is_stated {
            SpecialTokens::ending(self.end_of_text_name()).save_beside(path)?;
        }
        calm_files::write_atomic(path, json.as_bytes()).map_err(Error::io("write", path))
    }

    /// Writes `tokenizer.json` and a `tokenizer_config.json` as programs of others read them, older ones
    /// too: merges as one text each, where since 2024 the library writes pairs.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tokenize`] where the library fails.
    pub fn export(&self, directory: &Path) -> Result<()> {
        let json = self.inner.to_string(false).map_err(failed("serialize"))?;
        let mut json: serde_json::Value =
            serde_json::from_str(&json).expect("the library writes JSON");
        if let Some(merges) = json.pointer_mut("/model/merges") {
            let old = |merge: &serde_json::Value| {
                let [left, right] = &merge.as_array()?[..] else {
                    return None;
                };
                let (left, right) = (left.as_str()?, right.as_str()?);
                let told_apart = !left.contains(' ') && !right.contains(' ');
                told_apart.then(|| serde_json::Value::from(format!("{left} {right}")))
            };
            // All or none: a list of both forms is read by nobody.
            let all = merges
                .as_array()
                .and_then(|merges| merges.iter().map(old).collect());
            if let Some(all) = all {
                *merges = serde_json::Value::Array(all);
            }
        }
        let write = |name: &str, json: &serde_json::Value| {
            let path = directory.join(name);
            let text = serde_json::to_string_pretty(json).expect("it was JSON");
            calm_files::write_atomic(&path, text.as_bytes()).map_err(Error::io("write", &path))
        };
        write("tokenizer.json", &json)?;
        let end = self.end_of_text_name();
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
        });
        write("tokenizer_config.json", &config)
    }

    /// Token ids of `text`; no special tokens are added.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the library fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let by_library = |text: &str| -> Result<Vec<u32>> {
            let encoding = self.inner.encode_fast(text, false);
            Ok(encoding.map_err(failed("encode"))?.get_ids().to_vec())
        };
        let by_words = self
            .words
            .as_ref()
            .map(|words| words.encode(text, by_library));
        match by_words.transpose()?.flatten() {
            Some(ids) => Ok(ids),
            None => by_library(text),
        }
    }

    /// The same with the special tokens that the file puts around a text, LLaMA's first one say: as
    /// models of others were trained to see one begin.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the library fails.
    pub fn encode_beginning(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true);
        let mut ids = encoding.map_err(failed("encode"))?.get_ids().to_vec();
        // Some end it as well; it is to be continued.
        if ids.last() == Some(&self.end_of_text) {
            ids.pop();
        }
        Ok(ids)
    }

    /// Token ids of each text, in order, on all cores.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the library fails.
    pub fn encode_batch(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text)).collect()
    }

    /// Text of `ids`; special tokens are skipped, invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the vocabulary, [`Error::Tokenize`] where the
    /// library fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        for &id in ids {
            if id as usize >= self.vocab_size {
                return Err(Error::UnknownToken {
                    id,
                    vocab_size: self.vocab_size,
                });
            }
        }
        self.inner.decode(ids, true).map_err(failed("decode"))
    }

    /// Number of ids, end-of-text included: every id is below it. With
    /// [`for_vocabulary`](Self::for_vocabulary) the model's.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Id of the end-of-text token.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The end-of-text token as it is written.
    pub fn end_of_text_name(&self) -> String {
        self.inner.id_to_token(self.end_of_text).unwrap_or_default()
    }

    /// sha256 of the serialized tokenizer as 64 hexadecimal digits; the same after save and load.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
impl Tokenizer {
    /// The library's own.
    pub(crate) fn library(&self) -> &Inner {
        &self.inner
    }
}

fn failed(action: &'static str) -> impl FnOnce(tokenizers::Error) -> Error {
    move |e| Error::Tokenize {
        action,
        reason: one_line(&e.to_string()),
    }
}

/// Messages of the library, and what files put into ours, may span lines or be of any length; ours are
/// lines, without what a terminal would obey.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 400;
    let words: Vec<_> = message.split_whitespace().collect();
    let plain = words.join(" ").replace(char::is_control, " ");
    match plain.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}..", &plain[..end]),
        None => plain,
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
