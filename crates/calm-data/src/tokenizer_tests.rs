//! Tests of the tokenizer.

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
fn a_text_begins_as_the_file_says() {
    use tokenizers::processors::template::TemplateProcessing;
    let mut inner = SMALL.inner.clone();
    inner.add_special_tokens(&[AddedToken::from("<s>", true)]);
    let begin = inner.token_to_id("<s>").unwrap();
    let around = TemplateProcessing::builder()
        .try_single(format!("<s> $A {END_OF_TEXT}"))
        .unwrap()
        .special_tokens(vec![("<s>", begin), (END_OF_TEXT, SMALL.end_of_text())])
        .build()
        .unwrap();
    inner.with_post_processor(Some(around));
    let tokenizer = Tokenizer::finish(inner, SMALL.end_of_text()).unwrap();
    let plain = SMALL.encode("the sea").unwrap();
    assert_eq!(tokenizer.encode("the sea").unwrap(), plain);
    let expected = [&[begin], &plain[..]].concat();
    assert_eq!(tokenizer.encode_beginning("the sea").unwrap(), expected);
    assert_eq!(SMALL.encode_beginning("the sea").unwrap(), plain);
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
