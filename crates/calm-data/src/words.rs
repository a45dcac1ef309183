//! Encoding by words that are known already.
//!
//! A byte-level tokenizer cuts a text into words by a regular expression, and encodes each word by itself.
//! The library does both anew for every word of every text. Texts repeat their words, so here the ids of a
//! word are kept, and what is new is given to the library word by word: the ids are the same.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Inner};

/// How the rules of GPT-2, Llama 3 and their kind end: of white space before a word the last character
/// belongs to the word. Nothing else in them looks ahead.
const SPACE_RULE: &str = r"|\s+(?!\S)|\s+";

/// The rule of a byte-level tokenizer that names none.
pub(crate) const GPT_2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Words that are kept, their ids, and the bytes of the longest: about 40 MB at most. Frequent words come
/// early.
const MOST_WORDS: usize = 1 << 18;
const MOST_IDS: usize = 1 << 20;
const LONGEST: usize = 48;

/// The ids of words that were met.
pub(crate) struct Words {
    /// The rule without [`SPACE_RULE`], and white space.
    rule: Regex,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Where the ids of a word begin and end in `ids`.
    places: HashMap<Box<str>, (u32, u32), ahash::RandomState>,
    ids: Vec<u32>,
}

impl Words {
    /// For a tokenizer that encodes words by themselves and whose rule is of the known kind.
    pub fn of(tokenizer: &Inner) -> Option<Self> {
        let by_itself = match tokenizer.get_model() {
            ModelWrapper::BPE(model) => model.dropout.is_none_or(|dropout| dropout == 0.0),
            _ => false,
        };
        let added = tokenizer.get_added_tokens_decoder();
        // Special ones are never met in a text.
        let plain = tokenizer.get_normalizer().is_none() && added.values().all(|t| t.special);
        if !by_itself || !plain {
            return None;
        }
        let bytes = |step: &PreTokenizerWrapper| match step {
            PreTokenizerWrapper::ByteLevel(bytes) => !bytes.add_prefix_space,
            PreTokenizerWrapper::Split(_) => true,
            _ => false,
        };
        let rule = match tokenizer.get_pre_tokenizer()? {
            PreTokenizerWrapper::ByteLevel(bytes) => {
                (bytes.use_regex && !bytes.add_prefix_space).then_some(GPT_2)?
            }
            PreTokenizerWrapper::Sequence(steps) => match steps.as_ref() {
                [PreTokenizerWrapper::Split(first), rest @ ..] if rest.iter().all(bytes) => {
                    rule_of(first)?
                }
                _ => return None,
            },
            PreTokenizerWrapper::Split(only) => rule_of(only)?,
            _ => return None,
        };
        let rule = rule.strip_suffix(SPACE_RULE)?;
        // A word that is looked at alone must be cut as it is in its text: nothing looks around, and
        // nothing that was matched is held on to, which the two libraries write alike and read otherwise.
        let parsed = regex_automata::util::syntax::parse(rule).ok()?;
        if !parsed.properties().look_set().is_empty() || is_possessive(rule) {
            return None;
        }
        Some(Self {
            rule: Regex::new_many(&[rule, r"\s+"]).ok()?,
            known: RwLock::default(),
        })
    }

    /// The ids of `text`, new words by `encode`; `None` where the rule has no word for a part of it.
    pub fn encode<E>(
        &self,
        text: &str,
        mut encode: impl FnMut(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Option<Vec<u32>>, E> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        // New words, each with the length of `ids` where it belongs.
        let mut holes: Vec<(usize, &str)> = Vec::new();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        while at < text.len() {
            let Some(end) = self.word_end(text, at) else {
                return Ok(None);
            };
            let word = &text[at..end];
            at = end;
            match known.places.get(word) {
                Some(&(from, to)) => {
                    ids.extend_from_slice(&known.ids[from as usize..to as usize]);
                }
                None => holes.push((ids.len(), word)),
            }
        }
        let is_full = known.is_full();
        // Others go on while new words are encoded.
        drop(known);
        if holes.is_empty() {
            return Ok(Some(ids));
        }
        let mut new: HashMap<&str, Vec<u32>, ahash::RandomState> = HashMap::default();
        let mut filled = Vec::with_capacity(ids.len() + 2 * holes.len());
        let mut copied = 0;
        for (at, word) in holes {
            filled.extend_from_slice(&ids[copied..at]);
            copied = at;
            if !new.contains_key(word) {
                new.insert(word, encode(word)?);
            }
            filled.extend_from_slice(&new[word]);
        }
        filled.extend_from_slice(&ids[copied..]);
        if !is_full {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (word, ids) in new {
                known.insert(word, &ids);
            }
        }
        Ok(Some(filled))
    }

    /// Where the word that begins at `at` ends.
    fn word_end(&self, text: &str, at: usize) -> Option<usize> {
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        let found = self.rule.search(&input)?;
        let end = found.end();
        if end == at {
            return None;
        }
        let is_space = found.pattern().as_usize() == 1;
        if is_space && end < text.len() {
            let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
            if end - last > at {
                return Some(end - last);
            }
        }
        Some(end)
    }
}

impl Known {
    fn is_full(&self) -> bool {
        self.places.len() >= MOST_WORDS || self.ids.len() >= MOST_IDS
    }

    fn insert(&mut self, word: &str, ids: &[u32]) {
        // Another text may have brought it meanwhile.
        if word.len() <= LONGEST && !self.is_full() && !self.places.contains_key(word) {
            let from = self.ids.len() as u32;
            self.ids.extend_from_slice(ids);
            self.places
                .insert(word.into(), (from, self.ids.len() as u32));
        }
    }
}

/// Whether a rule may have possessive repetitions: a `+` behind a repetition. Classes by their name end like
/// one.
fn is_possessive(rule: &str) -> bool {
    let mut plain = String::new();
    let mut rest = rule;
    while let Some(at) = rest.find(r"\p{").or_else(|| rest.find(r"\P{")) {
        plain.push_str(&rest[..at]);
        plain.push('x');
        rest = rest[at..].split_once('}').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    ["++", "*+", "?+", "}+"]
        .iter()
        .any(|end| plain.contains(end))
}

/// The rule of a step that cuts a text into words and drops nothing.
fn rule_of(split: &Split) -> Option<&str> {
    match &split.pattern {
        SplitPattern::Regex(rule) if split.behavior == SplitDelimiterBehavior::Isolated => {
            (!split.invert).then_some(rule)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::sequence::Sequence;

    use super::*;
    use crate::Tokenizer;

    const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// A byte-level tokenizer of little text with this way to find words.
    fn tokenizer(steps: impl Into<PreTokenizerWrapper>) -> Inner {
        let mut inner = Inner::new(BPE::default());
        inner.with_pre_tokenizer(Some(steps));
        let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
            .vocab_size(400)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
            .into();
        let texts = (0..50).map(|i| format!("It's {i} o'clock,  we'LL see\n\n\tthe sea 海と. "));
        inner.train(&mut trainer, texts).unwrap();
        inner
    }

    fn split(rule: &str, behavior: SplitDelimiterBehavior, invert: bool) -> Split {
        Split::new(SplitPattern::Regex(rule.to_owned()), behavior, invert).unwrap()
    }

    fn by_rule(rule: &str) -> Inner {
        let isolated = SplitDelimiterBehavior::Isolated;
        let bytes = ByteLevel::new(false, true, false);
        let steps = vec![split(rule, isolated, false).into(), bytes.into()];
        tokenizer(Sequence::new(steps))
    }

    static ALL: LazyLock<Vec<(Inner, Words)>> = LazyLock::new(|| {
        let isolated = SplitDelimiterBehavior::Isolated;
        let short = split(r"[\s\S]{3}", isolated, false);
        let bytes = ByteLevel::new(false, true, false);
        let first = split(GPT_2, isolated, false);
        let all = [
            by_rule(GPT_2),
            by_rule(LLAMA_3),
            tokenizer(ByteLevel::new(false, true, true)),
            tokenizer(Sequence::new(vec![
                first.into(),
                short.into(),
                bytes.into(),
            ])),
        ];
        all.map(|inner| {
            let words = Words::of(&inner).expect("a rule of the known kind");
            (inner, words)
        })
        .into()
    });

    fn library(inner: &Inner, text: &str) -> Vec<u32> {
        inner.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    fn check(text: &str) {
        for (inner, words) in ALL.iter() {
            let encode = |word: &str| Ok::<_, Infallible>(library(inner, word));
            let Ok(found) = words.encode(text, encode);
            assert_eq!(found, Some(library(inner, text)), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        // Words, marks and spaces of all kinds next to each other.
        #[test]
        fn ids_are_those_of_the_library(
            text in r"[ab'sTlLe09.,\-  \t\n\r\u{a0}\u{2003}\u{200b}\u{301}éß海🙂²Ⅷ_]{0,40}",
        ) {
            check(&text);
        }

        #[test]
        fn ids_of_any_text_are_those_of_the_library(text in any::<String>()) {
            check(&text);
        }
    }

    #[test]
    fn spaces_before_words_lines_and_ends_are_cut_as_the_library_cuts_them() {
        for text in [
            "a  b",
            " a   ",
            "a\n\nb",
            "a \n b",
            "\n\n\n",
            "  \t x",
            "a\r\n\r\nb",
            "",
            " ",
        ] {
            check(text);
        }
        check(&"a long word ".repeat(50));
        check(&"x".repeat(500));
    }

    #[test]
    fn words_are_kept_once_and_found_again() {
        let (inner, words) = (by_rule(GPT_2), Words::of(&by_rule(GPT_2)).unwrap());
        let mut asked = Vec::new();
        for _ in 0..3 {
            let encode = |word: &str| {
                asked.push(word.to_owned());
                Ok::<_, Infallible>(library(&inner, word))
            };
            let Ok(_) = words.encode("the sea the sea the", encode);
        }
        assert_eq!(asked, ["the", " sea", " the"]);
        assert_eq!(words.known.read().unwrap().places.len(), 3);
    }

    #[test]
    fn rules_that_look_around_and_others_are_left_to_the_library() {
        let isolated = SplitDelimiterBehavior::Isolated;
        let known = |inner: &Inner| Words::of(inner).is_some();
        assert!(known(&by_rule(GPT_2)));
        for rule in [
            r"\w+|\s+",
            r"\b\w+|\s+(?!\S)|\s+",
            r"a(?!b)|\s+(?!\S)|\s+",
            r"\p{N}\p{L}|\p{N}{1,3}+|\s+(?!\S)|\s+",
            r"\p{L}++|\s+(?!\S)|\s+",
        ] {
            assert!(!known(&by_rule(rule)), "{rule}");
        }
        assert!(!known(&tokenizer(split(GPT_2, isolated, true))));
        assert!(!known(&tokenizer(split(
            GPT_2,
            SplitDelimiterBehavior::Removed,
            false
        ))));
        assert!(!known(&tokenizer(ByteLevel::new(true, true, true))));
        let mut added = by_rule(GPT_2);
        added.add_tokens(&[tokenizers::AddedToken::from("the sea", false)]);
        assert!(!known(&added));
    }

    #[test]
    fn a_trained_tokenizer_takes_the_short_way() {
        let trained = Tokenizer::train(["the sea, the sea".to_owned()].into_iter(), 300).unwrap();
        assert!(Words::of(trained.library()).is_some());
    }
}
