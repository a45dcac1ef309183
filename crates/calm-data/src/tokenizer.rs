//! Byte-level BPE: training, loading, encoding and decoding over the `tokenizers` library.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The end-of-text token of tokenizers trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// End-of-text tokens of loaded tokenizers, in the order in which they are looked for: GPT-2's,
/// Llama 3's, Llama 2's.
const END_OF_TEXT_NAMES: [&str; 3] = [END_OF_TEXT, "<|end_of_text|>", "</s>"];

/// Where words begin and end: GPT-2's rule.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A word of more characters is split after so many: scripts without spaces make words of whole
/// sentences, which no merge is learned from that another text could use.
const LONGEST_WORD: usize = 32;

/// The 256 bytes and end-of-text.
const SMALLEST_VOCABULARY: usize = 257;

/// Text to token ids and back, with one end-of-text token.
///
/// Text never becomes a special token: a text that spells out `<|endoftext|>` is encoded as those
/// characters.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Inner,
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
            split(WORDS).map_err(failed("train"))?.into(),
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
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(failed("encode"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of each text, in order, on all cores.
    ///
    /// # Errors
    /// [`Error::Tokenize`] where the library fails.
    pub fn encode_batch(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let encodings = self
            .inner
            .encode_batch_fast(texts, false)
            .map_err(failed("encode"))?;
        Ok(encodings
            .iter()
            .map(|encoding| encoding.get_ids().to_vec())
            .collect())
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
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| train(400));

    fn texts() -> impl Iterator<Item = String> + Send {
        (0..200).map(|i| format!("The river {i} ran to the sea, and the sea is not full. 海へ\n"))
    }

    fn train(vocab_size: usize) -> Tokenizer {
        Tokenizer::train(texts(), vocab_size).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_round_trips(text in any::<String>()) {
            let ids = SMALL.encode(&text).unwrap();
            prop_assert!(ids.iter().all(|&id| (id as usize) < SMALL.vocab_size()));
            prop_assert!(!ids.contains(&SMALL.end_of_text()));
            prop_assert_eq!(SMALL.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn training_is_deterministic_and_reaches_the_size() {
        let (a, b) = (train(300), train(300));
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.vocab_size(), 300);
        assert_eq!(a.end_of_text(), 299);
        assert_ne!(a.fingerprint(), train(301).fingerprint());
    }

    #[test]
    fn order_of_the_texts_does_not_matter() {
        let mut reversed: Vec<_> = texts().collect();
        reversed.reverse();
        let reversed = Tokenizer::train(reversed.into_iter(), 300).unwrap();
        assert_eq!(reversed.fingerprint(), train(300).fingerprint());
    }

    #[test]
    fn a_bytes_only_vocabulary_has_one_token_per_byte() {
        let bytes = train(257);
        assert_eq!(bytes.vocab_size(), 257);
        assert_eq!(bytes.encode("sea 海\n").unwrap().len(), "sea 海\n".len());
    }

    #[test]
    fn merges_shorten_the_text() {
        assert_eq!(SMALL.encode(" river").unwrap().len(), 1);
        assert!(
            SMALL.vocab_size() < 400,
            "so little text has too few pairs for 400 tokens"
        );
    }

    /// As GPT-2 splits, but for words longer than any that it was made for.
    #[test]
    fn long_words_are_split_and_others_are_not() {
        let bytes = ByteLevel::new(false, true, true);
        let mut unbounded = Inner::new(SMALL.inner.get_model().clone());
        unbounded.with_pre_tokenizer(Some(bytes));
        for text in [
            "The sea's  not\n\n full, 1234567 times.  ",
            "海へ the river",
        ] {
            let expected = unbounded.encode_fast(text, false).unwrap();
            assert_eq!(SMALL.encode(text).unwrap(), expected.get_ids());
        }
        let longest = |text: String| {
            let tokenizer = Tokenizer::train([text.clone()].into_iter(), 2000).unwrap();
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            let length = |&id: &u32| tokenizer.decode(&[id]).unwrap().chars().count();
            ids.iter().map(length).max().unwrap()
        };
        assert_eq!(longest("a".repeat(5000)), LONGEST_WORD);
        assert_eq!(longest("海".repeat(5000)), LONGEST_WORD);
    }

    #[test]
    fn text_cannot_forge_the_special_token() {
        let ids = SMALL.encode("a<|endoftext|>b").unwrap();
        assert!(!ids.contains(&SMALL.end_of_text()));
        assert_eq!(SMALL.decode(&ids).unwrap(), "a<|endoftext|>b");
        assert_eq!(SMALL.decode(&[SMALL.end_of_text()]).unwrap(), "");
    }

    #[test]
    fn encode_batch_is_encode_of_each() {
        let texts = vec![
            "the sea".to_string(),
            String::new(),
            "海 river 12".to_string(),
        ];
        let batch = SMALL.encode_batch(texts.clone()).unwrap();
        for (ids, text) in batch.iter().zip(&texts) {
            assert_eq!(ids, &SMALL.encode(text).unwrap());
        }
    }

    #[test]
    fn save_and_load_keep_fingerprint_and_ids() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        SMALL.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.fingerprint(), SMALL.fingerprint());
        assert_eq!(loaded.end_of_text(), SMALL.end_of_text());
        let text = "The sea <|endoftext|> ran";
        assert_eq!(loaded.encode(text).unwrap(), SMALL.encode(text).unwrap());
    }

    #[test]
    fn stored_truncation_and_padding_are_switched_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        let mut inner = SMALL.inner.clone();
        let truncation = tokenizers::TruncationParams {
            max_length: 2,
            ..Default::default()
        };
        inner.with_truncation(Some(truncation)).unwrap();
        inner.with_padding(Some(tokenizers::PaddingParams::default()));
        fs::write(&path, inner.to_string(false).unwrap()).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        let text = "a longer text than two tokens".to_string();
        assert_eq!(loaded.encode(&text).unwrap(), SMALL.encode(&text).unwrap());
        let batch = loaded.encode_batch(vec![text.clone(), "a".into()]).unwrap();
        assert_eq!(batch[1], SMALL.encode("a").unwrap());
        assert_eq!(loaded.fingerprint(), SMALL.fingerprint());
    }

    #[test]
    fn other_end_of_text_names_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        let json = SMALL.inner.to_string(false).unwrap();
        for name in ["<|end_of_text|>", "</s>"] {
            fs::write(&path, json.replace(END_OF_TEXT, name)).unwrap();
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded.end_of_text(), SMALL.end_of_text());
        }
        fs::write(&path, json.replace(END_OF_TEXT, "<stop>")).unwrap();
        let end = SMALL.end_of_text();
        let told = Tokenizer::load_with_end(&path, Some(end)).unwrap();
        assert_eq!(told.end_of_text(), end);
        let error = Tokenizer::load(&path).unwrap_err();
        assert!(matches!(error, Error::NoEndOfText { .. }), "{error}");
        assert!(error.to_string().contains("<|end_of_text|>"), "{error}");
    }

    #[test]
    fn a_configuration_beside_it_names_the_end_and_adds_tokens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        let beside = directory.path().join("tokenizer_config.json");
        SMALL.save(&path).unwrap();
        let size = SMALL.vocab_size() as u32;
        let write = |json: &str| fs::write(&beside, json).unwrap();
        let added = |id: u32| {
            format!(
                r#"{{"eos_token": {{"content": "<|eot|>", "lstrip": false}}, "bos_token": null,
                    "added_tokens_decoder": {{
                        "{id}": {{"content": "[PAD]", "special": true}},
                        "{}": {{"content": "<|eot|>", "special": true}}}}}}"#,
                id + 1
            )
        };
        write(&added(size));
        // The directory will do.
        let loaded = Tokenizer::load(directory.path()).unwrap();
        assert_eq!(loaded.vocab_size(), SMALL.vocab_size() + 2);
        assert_eq!(loaded.end_of_text(), size + 1);
        assert_eq!(loaded.decode(&[size]).unwrap(), "");
        assert_ne!(loaded.fingerprint(), SMALL.fingerprint());
        let text = "The sea [PAD] <|eot|>";
        let ids = loaded.encode(text).unwrap();
        assert!(ids.iter().all(|&id| id < size), "a text can't forge them");
        assert_eq!(loaded.decode(&ids).unwrap(), text);

        // Saved elsewhere the end of a text is still the same.
        let other = tempfile::tempdir().unwrap();
        loaded.save(&other.path().join("tokenizer.json")).unwrap();
        let again = Tokenizer::load(other.path()).unwrap();
        assert_eq!(again.end_of_text(), size + 1);
        assert_eq!(again.fingerprint(), loaded.fingerprint());

        for (json, part) in [
            (added(size + 5), "[PAD]"),
            (r#"{"eos_token": "<nothing>"}"#.to_owned(), "<nothing>"),
            (r#"{"eos_token": 7}"#.to_owned(), "tokenizer_config.json"),
            ("{".to_owned(), "tokenizer_config.json"),
        ] {
            write(&json);
            let error = Tokenizer::load(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        write(r#"{"eos_token": null, "model_max_length": 1e30}"#);
        assert_eq!(
            Tokenizer::load(&path).unwrap().end_of_text(),
            SMALL.end_of_text()
        );
    }

    #[test]
    fn what_is_exported_is_read_by_older_programs_and_by_this() {
        let directory = tempfile::tempdir().unwrap();
        SMALL.export(directory.path()).unwrap();
        let json = fs::read_to_string(directory.path().join("tokenizer.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let merges = json["model"]["merges"].as_array().unwrap();
        assert!(merges.len() > 50 && merges.iter().all(|merge| merge.is_string()));
        let loaded = Tokenizer::load(directory.path()).unwrap();
        assert_eq!(loaded.fingerprint(), SMALL.fingerprint());
        assert_eq!(loaded.end_of_text(), SMALL.end_of_text());
    }

    #[test]
    fn a_model_may_have_more_tokens_but_not_fewer() {
        let size = SMALL.vocab_size();
        let larger = SMALL.clone().for_vocabulary(size + 1).unwrap();
        assert_eq!(larger.decode(&[size as u32]).unwrap(), "");
        assert_eq!(larger.vocab_size(), size + 1);
        // A padding that the model was not made larger for.
        let mut padded = SMALL.inner.clone();
        padded.add_special_tokens(&[AddedToken::from("[PAD]", true)]);
        let padded = Tokenizer::finish(padded, SMALL.end_of_text()).unwrap();
        assert_eq!(padded.vocab_size(), size + 1);
        let fitting = padded.for_vocabulary(size).unwrap();
        assert!(
            fitting
                .encode("[PAD] sea")
                .unwrap()
                .iter()
                .all(|&id| (id as usize) < size)
        );
        let error = SMALL.clone().for_vocabulary(size - 1).unwrap_err();
        assert!(matches!(error, Error::VocabTooLarge { .. }), "{error}");
    }

    #[test]
    fn corrupt_and_missing_files_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        assert!(matches!(Tokenizer::load(&path), Err(Error::Io { .. })));
        let json = SMALL.inner.to_string(false).unwrap();
        for bytes in [&json.as_bytes()[..json.len() / 2], b"{}", b"", b"\xff\xfe"] {
            fs::write(&path, bytes).unwrap();
            let error = Tokenizer::load(&path).unwrap_err();
            assert!(matches!(error, Error::BadTokenizer { .. }), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn bad_training_input_is_an_error() {
        assert!(matches!(
            Tokenizer::train(texts(), 256),
            Err(Error::VocabTooSmall { vocab_size: 256 })
        ));
        let empty = vec![String::new(), String::new()];
        assert!(matches!(
            Tokenizer::train(empty.into_iter(), 300),
            Err(Error::EmptyTrainingText)
        ));
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_an_error() {
        let id = SMALL.vocab_size() as u32;
        assert!(matches!(
            SMALL.decode(&[0, id]),
            Err(Error::UnknownToken { .. })
        ));
    }
}
