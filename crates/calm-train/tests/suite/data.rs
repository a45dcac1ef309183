//! The text of a run: its parts, however little it is, and its cache.

use calm_data::CacheDir;
use calm_records::{EvalPoint, RunDir, Stage, Summary, TextPart, read_jsonl};
use calm_train::{Event, RunEnd, Stages, data, language_model_checkpoint};

use crate::{Place, logged, text};

/// One file of some windows, whose hash falls into one part, is cut instead of refused.
#[test]
fn a_text_of_a_few_windows_trains() {
    for bytes in [60_000, 20_000, 10_000] {
        let mut place = Place::new();
        let text = text().repeat(2);
        std::fs::write(&place.experiment.data.corpus[0], &text[..bytes]).unwrap();
        place.experiment.model.window = 256;
        place.experiment.data.validation_fraction = 0.05;
        place.experiment.data.test_fraction = 0.05;
        let stop = Some((Stage::Autoencoder, 1));
        let end = place.train("run", Stages::All, stop).unwrap();
        assert_eq!(end, RunEnd::Interrupted, "{bytes} bytes");
        // What was done instead of what was asked for is on record.
        let run = RunDir::open(place.run("run")).unwrap();
        let data = calm_train::preset::load(&run.config()).unwrap().data;
        assert_eq!(data.whole_below, 0);
        assert!(data.test_fraction >= 0.05 && data.test_fraction <= 0.25);
        let again = |set: &str| {
            let set = [set.to_owned()];
            calm_train::preset::check_resume(&run.config(), Some("debug"), &set)
        };
        again("data.test_fraction=0.05").unwrap();
        again("data.test_fraction=0.3").unwrap_err();
        assert_eq!(
            place.resume("run", Stages::All, stop).unwrap(),
            RunEnd::Complete
        );
    }
}

#[test]
fn evaluations_on_the_way_and_the_final_one_are_of_different_parts() {
    let place = Place::new();
    place.train("run", Stages::All, None).unwrap();
    let run = RunDir::open(place.run("run")).unwrap();
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history()).unwrap();
    let parts: Vec<_> = points
        .iter()
        .filter_map(|point| point.protocol.map(|protocol| protocol.part))
        .collect();
    assert_eq!(parts, [TextPart::Validation; 2]);
    let summary = Summary::load(&run.summary()).unwrap();
    assert_eq!(summary.protocol.unwrap().part, TextPart::Test);
    // The checkpoint says by itself what was held out.
    let split = language_model_checkpoint(&run)
        .unwrap()
        .checkpoint
        .split()
        .cloned();
    let data = calm_train::preset::load(&run.config()).unwrap().data;
    assert_eq!(split, Some(data.split()));
}

#[test]
fn a_damaged_token_cache_is_made_again() {
    let place = Place::new();
    let stop = Some((Stage::Lm, 2));
    place.train("whole", Stages::All, None).unwrap();
    place.train("parts", Stages::All, stop).unwrap();
    let mut caches = 0;
    for entry in std::fs::read_dir(place.cache().tokens()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        caches += 1;
    }
    assert_eq!(caches, 1);
    assert_eq!(
        place.resume("parts", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("parts")), logged(&place.run("whole")));
}

/// The vocabulary of a large text is learned from a part of it, and that is said.
#[test]
fn a_tokenizer_is_trained_on_a_sample_of_a_large_text() {
    let place = Place::new();
    let mut config = place.experiment.data.clone();
    let long = text().repeat(300);
    std::fs::write(&config.corpus[0], &long).unwrap();
    let cache = CacheDir::at("/nonexistent");
    let (mut read, mut sample) = (Vec::new(), None);
    let mut observe = |event: Event<'_>| match event {
        Event::ReadingText { bytes_read, .. } => read.push(bytes_read),
        Event::TrainingTokenizer {
            sample_bytes,
            text_bytes,
            ..
        } => sample = Some((sample_bytes, text_bytes)),
        _ => {}
    };
    data::fit_split(&mut config, 16, &cache, &mut observe).unwrap();
    let tokenizer = data::tokenizer(&config, 280, &cache, &mut observe).unwrap();
    assert_eq!(tokenizer.vocab_size(), 280);
    let (sample_bytes, text_bytes) = sample.unwrap();
    let train = (long.len() as f64 * 0.7) as u64;
    let text_bytes = text_bytes.expect("all of it was read");
    assert!(text_bytes.abs_diff(train) < 1000, "{text_bytes}");
    assert!(
        sample_bytes <= 8 << 20 && sample_bytes < text_bytes,
        "{sample_bytes}"
    );
    assert!(sample_bytes > 4 << 20, "{sample_bytes}");
    assert!(read.is_sorted() && read.len() > 50);
}
