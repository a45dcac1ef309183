//! Text that is encoded while it is trained on.

use std::fs;

use calm_records::{RunDir, Stage, Summary};
use calm_train::{Error, RunEnd, Stages};

use crate::{Place, logged, text};

/// The text in four files of JSON Lines, two of them for the autoencoder alone.
fn place(streamed: bool) -> Place {
    let mut place = Place::new();
    let directory = place.run("shards");
    fs::create_dir(&directory).unwrap();
    let text = text();
    let documents: Vec<&str> = text.split("\n\n").filter(|d| !d.is_empty()).collect();
    let mut files = Vec::new();
    for (i, documents) in documents.chunks(documents.len() / 4).take(4).enumerate() {
        let line = |document: &&str| format!("{{\"text\": \"{document}\"}}\n");
        let lines: String = documents.iter().map(line).collect();
        let path = directory.join(format!("{i}.jsonl.zst"));
        fs::write(&path, zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
        files.push(path.display().to_string());
    }
    let data = &mut place.experiment.data;
    data.autoencoder_corpus = files.split_off(2);
    data.corpus = files;
    data.stream.enabled = streamed;
    data.stream.buffer_tokens = 300;
    data.stream.sample_tokens = 1000;
    place
}

#[test]
fn a_streamed_run_goes_on_bit_for_bit() {
    let place = place(true);
    place.train("whole", Stages::All, None).unwrap();
    let whole = logged(&place.run("whole"));
    assert_eq!(whole.len(), 7 + 6);
    let stop = Some((Stage::Autoencoder, 5));
    place.train("parts", Stages::All, stop).unwrap();
    for stop in [Some((Stage::Lm, 3)), None] {
        place.resume("parts", Stages::All, stop).unwrap();
    }
    assert_eq!(logged(&place.run("parts")), whole);
    let tokens = |name: &str| {
        let run = RunDir::open(place.run(name)).unwrap();
        Summary::load(&run.summary()).unwrap().tokens_seen
    };
    assert_eq!(tokens("parts"), tokens("whole"));
    let end = place.train("baseline", Stages::Baseline, Some((Stage::Baseline, 3)));
    assert_eq!(end.unwrap(), RunEnd::Interrupted);
    let end = place.resume("baseline", Stages::Baseline, None);
    assert_eq!(end.unwrap(), RunEnd::Complete);
}

#[test]
fn the_autoencoder_alone_reads_its_own_text() {
    for streamed in [false, true] {
        let place = place(streamed);
        place.train("own", Stages::All, None).unwrap();
        let mut same = self::place(streamed);
        same.experiment.data.autoencoder_corpus.clear();
        same.train("same", Stages::All, None).unwrap();
        let losses = |place: &Place, name: &str, stage: Stage| -> Vec<[u64; 3]> {
            let rows = logged(&place.run(name)).into_iter();
            rows.filter(|row| row.0 == stage).map(|row| row.2).collect()
        };
        let [own, other] = [(&place, "own"), (&same, "same")]
            .map(|(place, name)| losses(place, name, Stage::Autoencoder));
        assert_eq!(own.len(), other.len());
        assert!(own.iter().zip(&other).all(|(a, b)| a != b), "{streamed}");
        // Text that has changed meanwhile is refused: of this stage too.
        let stop = Some((Stage::Autoencoder, 3));
        place.train("parts", Stages::All, stop).unwrap();
        let changed = &place.experiment.data.autoencoder_corpus[0];
        let line = b"{\"text\": \"other words than before, and more of them\"}\n".repeat(99);
        fs::write(changed, zstd::encode_all(&line[..], 1).unwrap()).unwrap();
        let error = place.resume("parts", Stages::All, None).unwrap_err();
        assert!(matches!(error, Error::TextChanged { .. }), "{error}");
    }
}

/// Evaluations are of the held-out parts, as without a stream.
#[test]
fn streamed_text_holds_out_what_encoded_text_does() {
    let held_out = |streamed: bool| {
        let mut place = place(streamed);
        place.experiment.data.autoencoder_corpus.clear();
        place.experiment.data.stream.sample_tokens = 1 << 30;
        let experiment = &place.experiment;
        let (data, cache) = (&experiment.data, place.cache());
        let tokenizer = calm_train::data::tokenizer(data, 280, &cache, &mut |_| ()).unwrap();
        let store =
            calm_train::data::token_store(data, &data.split(), &tokenizer, &cache, &mut |_| ());
        let store = store.unwrap();
        (store.validation().to_vec(), store.test().to_vec())
    };
    assert_eq!(held_out(true), held_out(false));
}
