//! Incremental decoding: text as soon as it is certain, never half a character.

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// An unfinished UTF-8 character has at most three bytes, each of which may show as one U+FFFD.
const MAX_UNFINISHED: usize = 3;

/// Turns ids into text one at a time. The pieces joined are what [`Tokenizer::decode`] gives for
/// all the ids at once.
///
/// Works for every decoder of the library, those that look at the token before included: the last
/// token that was printed stays in the window as context.
#[derive(Debug)]
pub struct TokenStreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Context and the ids whose text is not yet fully out.
    window: Vec<u32>,
    /// Bytes of the window's text that are out already.
    emitted: usize,
}

impl Tokenizer {
    /// Decodes a stream of ids piece by piece, for printing while generating.
    pub fn stream(&self) -> TokenStreamDecoder<'_> {
        TokenStreamDecoder {
            tokenizer: self,
            window: Vec::new(),
            emitted: 0,
        }
    }
}

impl TokenStreamDecoder<'_> {
    /// Takes one id; returns the text that it makes certain, if any. Text that may still turn out
    /// to be the beginning of a character is held back.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.window.push(id);
        let text = match self.tokenizer.decode(&self.window) {
            Ok(text) => text,
            Err(error) => {
                self.window.pop();
                return Err(error);
            }
        };
        let mut certain = text.len();
        for _ in 0..MAX_UNFINISHED {
            if text[..certain].ends_with(char::REPLACEMENT_CHARACTER) {
                certain -= char::REPLACEMENT_CHARACTER.len_utf8();
            }
        }
        let piece = text
            .get(self.emitted..certain)
            .unwrap_or_default()
            .to_string();
        self.emitted = self.emitted.max(certain);
        if certain == text.len() && !text.is_empty() {
            self.window.drain(..self.window.len() - 1);
            self.emitted = self.tokenizer.decode(&self.window)?.len();
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The text still held back, with U+FFFD for what never became a character.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn finish(self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.window)?;
        let rest = text.get(self.emitted..).unwrap_or_default();
        Ok((!rest.is_empty()).then(|| rest.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| {
        let texts = (0..100).map(|i| format!("déjà vu {i} — 海と空 🙂🙃 x"));
        Tokenizer::train(texts, 330).unwrap()
    });

    fn streamed(ids: &[u32]) -> String {
        let mut stream = SMALL.stream();
        let mut text = String::new();
        for &id in ids {
            text.extend(stream.push(id).unwrap());
        }
        text.extend(stream.finish().unwrap());
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn pieces_of_a_text_join_to_the_text(text in any::<String>()) {
            prop_assert_eq!(streamed(&SMALL.encode(&text).unwrap()), text);
        }

        // Random ids are mostly invalid UTF-8, and some are end-of-text.
        #[test]
        fn pieces_of_any_ids_join_to_the_decoded_ids(
            picks in proptest::collection::vec(any::<u32>(), 0..40),
        ) {
            let ids: Vec<_> = picks.iter().map(|p| p % SMALL.vocab_size() as u32).collect();
            prop_assert_eq!(streamed(&ids), SMALL.decode(&ids).unwrap());
        }
    }

    #[test]
    fn half_a_character_is_held_back() {
        let bytes = Tokenizer::train(["x".to_string()].into_iter(), 257).unwrap();
        let ids = bytes.encode("a🙂").unwrap();
        let mut stream = bytes.stream();
        let pieces: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        let expected = [
            Some("a".to_string()),
            None,
            None,
            None,
            Some("🙂".to_string()),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(stream.finish().unwrap(), None);
    }

    #[test]
    fn an_unfinished_character_comes_out_at_the_end() {
        let bytes = Tokenizer::train(["x".to_string()].into_iter(), 257).unwrap();
        let ids = bytes.encode("🙂").unwrap();
        let mut stream = bytes.stream();
        assert_eq!(stream.push(ids[0]).unwrap(), None);
        assert_eq!(stream.finish().unwrap().as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn a_bad_id_is_an_error_and_the_stream_goes_on() {
        let mut stream = SMALL.stream();
        assert!(stream.push(u32::MAX).is_err());
        let ids = SMALL.encode("x").unwrap();
        assert_eq!(stream.push(ids[0]).unwrap().as_deref(), Some("x"));
    }
}
