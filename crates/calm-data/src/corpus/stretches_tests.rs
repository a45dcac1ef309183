//! How texts become parts: what is cut where, and what ends.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{BadLinePolicy, CacheDir, Corpus, Tokenizer};

struct Place {
    directory: TempDir,
    cache: CacheDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Self {
            directory,
            cache: CacheDir::at("/nonexistent"),
        }
    }

    fn corpus(&self) -> Corpus {
        Corpus::parse(&[self.directory.path().to_str().unwrap().to_owned()]).unwrap()
    }

    fn stretches(&self, split: &Split) -> Vec<Stretch> {
        self.corpus()
            .stretches(&self.cache, split, BadLinePolicy::Fatal)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn fit(&self, split: &Split, least_bytes: u64) -> Split {
        self.corpus()
            .fit_split(&self.cache, split, BadLinePolicy::Fatal, least_bytes)
            .unwrap()
    }
}

/// Numbered sentences, some of them at the end of a line or paragraph.
fn prose(bytes: usize) -> String {
    let mut text = String::new();
    for i in 0.. {
        if text.len() >= bytes {
            break;
        }
        let end = [" ", " ", "\n", "\n\n"][i % 4];
        text.push_str(&format!("Sentence {i} of a long novel.{end}"));
    }
    text.trim_end().to_owned()
}

/// The text of a part, `|` for every end of text.
fn joined(stretches: &[Stretch], part: Part) -> String {
    let here = stretches.iter().filter(|s| s.part == part);
    here.map(|s| format!("{}{}", s.text, if s.ends { "|" } else { "" }))
        .collect()
}

#[test]
fn a_long_file_is_cut_in_three_stretches_with_one_end_each() {
    let text = prose(500_000);
    let place = Place::new(&[("a.txt", &text)]);
    let found = place.stretches(&Split::new(0.05, 0.1, 1 << 16));
    let parts = Part::ALL.map(|part| joined(&found, part));
    for (part, share) in parts.iter().zip([0.85, 0.05, 0.1]) {
        assert_eq!(part.matches('|').count(), 1, "text ends once in a part");
        let expected = share * text.len() as f64;
        assert!((part.len() as f64 - expected).abs() < 600.0);
    }
    let whole = parts.map(|part| part.trim_end_matches('|').to_owned());
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        words(&whole.join(" ")),
        words(&text),
        "in order, without gap"
    );
}

#[test]
fn line_ends_of_windows_don_t_move_the_borders() {
    let text = prose(200_000).replace('\n', "\r\n");
    let place = Place::new(&[("a.txt", &text)]);
    let found = place.stretches(&Split::new(0.1, 0.1, 1 << 16));
    let lengths = Part::ALL.map(|part| joined(&found, part).len() as f64);
    let total: f64 = lengths.iter().sum();
    for (length, share) in lengths.iter().zip([0.8, 0.1, 0.1]) {
        assert!((length / total - share).abs() < 0.01, "{lengths:?}");
    }
}

#[test]
fn a_text_without_spaces_or_line_ends_is_cut_too() {
    let text: String = (0..40_000)
        .map(|i| char::from_u32(0x4e00 + (i * 7919) % 5000).unwrap())
        .collect();
    let place = Place::new(&[("a.txt", &text)]);
    let found = place.stretches(&Split::new(0.1, 0.2, 1 << 16));
    let parts = Part::ALL.map(|part| joined(&found, part).trim_end_matches('|').to_owned());
    assert_eq!(parts.concat(), text);
    let share = parts[2].len() as f64 / text.len() as f64;
    assert!((share - 0.2).abs() < 0.001, "{share}");
}

#[test]
fn a_long_record_is_cut_and_short_ones_are_not() {
    let long = prose(300_000);
    let record = |text: &str| serde_json::json!({ "text": text }).to_string() + "\n";
    let short: String = (0..300)
        .map(|i| record(&format!("short record {i}")))
        .collect();
    let place = Place::new(&[("a.jsonl", &(record(&long) + &short))]);
    let found = place.stretches(&Split::new(0.1, 0.1, 1 << 16));
    for part in Part::ALL {
        let text = joined(&found, part);
        let (first, rest) = text.split_once('|').unwrap();
        assert!(
            first.starts_with("Sentence") && first.len() > 29_000,
            "{part:?}"
        );
        assert!(
            rest.split_terminator('|')
                .all(|text| text.starts_with("short record"))
        );
    }
    assert!(
        found
            .iter()
            .all(|stretch| stretch.text.len() <= 3 * PIECE_BYTES)
    );
}

#[test]
fn a_short_file_is_in_one_part_however_it_is_read() {
    let text = prose(900_000);
    let place = Place::new(&[("a.txt", &text), ("b.txt", &prose(10))]);
    let split = Split::new(0.3, 0.3, 1 << 20);
    let found = place.stretches(&split);
    let part = found[0].part;
    assert!(found.len() > 5, "it is read in pieces");
    assert!(found[..found.len() - 1].iter().all(|s| s.part == part));
    assert_eq!(part, split.part_of(split.hasher().chain_update(&text)));
    assert_eq!(joined(&found[..found.len() - 1], part), text + "|");
}

/// Pieces end where a byte-level tokenizer begins a new word: reading in pieces changes no token.
#[test]
fn the_tokens_of_the_pieces_are_those_of_the_whole() {
    let text = prose(400_000) + &" word".repeat(60_000);
    let tokenizer = Tokenizer::train([text.clone()].into_iter(), 400).unwrap();
    let place = Place::new(&[("a.txt", &text)]);
    let found = place.stretches(&Split::all_test());
    assert!(found.len() > 5);
    let ids: Vec<u32> = found
        .iter()
        .flat_map(|stretch| tokenizer.encode(&stretch.text).unwrap())
        .collect();
    assert_eq!(ids, tokenizer.encode(&text).unwrap());
}

#[test]
fn enough_text_keeps_the_split_that_was_asked_for() {
    let split = Split::new(0.05, 0.05, 1 << 16);
    let lines = |n: usize| -> String {
        (0..n)
            .map(|i| format!("{{\"text\": \"record {i} of many\"}}\n"))
            .collect()
    };
    assert_eq!(
        Place::new(&[("a.jsonl", &lines(3000))]).fit(&split, 1000),
        split
    );
    let novel = prose(2_000_000);
    assert_eq!(Place::new(&[("a.txt", &novel)]).fit(&split, 4096), split);
}

#[test]
fn few_or_short_texts_are_cut_within_and_give_more_to_the_held_out_parts() {
    let asked = Split::new(0.05, 0.05, 1 << 16);
    let within = Split {
        whole_below: 0,
        ..asked.clone()
    };
    // One file of 60 kB: a hash would put it into a single part.
    let file = Place::new(&[("a.txt", &prose(60_000))]);
    assert_eq!(file.fit(&asked, 3000), within);
    // Five records of 20 kB: 5 % of them is none.
    let records: String = (0..5)
        .map(|i| serde_json::json!({ "text": format!("{i} {}", prose(20_000)) }).to_string() + "\n")
        .collect();
    assert_eq!(
        Place::new(&[("a.jsonl", &records)]).fit(&asked, 3000),
        within
    );
    // 5 % of 20 kB is less than the least that scores need.
    let short = Place::new(&[("a.txt", &prose(20_000))]);
    let fitted = short.fit(&asked, 3000);
    assert!((fitted.test_fraction - 0.15).abs() < 0.01, "{fitted:?}");
    assert_eq!(fitted.validation_fraction, fitted.test_fraction);
    assert_eq!(
        short.fit(&fitted, 3000),
        fitted,
        "fitting again changes nothing"
    );
    // Many short records are dealt by hash, to larger parts.
    let many: String = (0..400)
        .map(|i| format!("{{\"text\": \"record {i} of many, none of them long\"}}\n"))
        .collect();
    let fitted = Place::new(&[("a.jsonl", &many)]).fit(&asked, 3000);
    assert_eq!(fitted.whole_below, asked.whole_below);
    assert!((0.15..0.25).contains(&fitted.test_fraction), "{fitted:?}");
    let tiny = Place::new(&[("a.txt", &prose(2_000))]).fit(&asked, 3000);
    assert_eq!((tiny.validation_fraction, tiny.test_fraction), (0.25, 0.25));
}

#[test]
fn a_sample_is_all_of_a_small_text_and_evenly_spread_over_a_large_one() {
    let other = prose(1_000_000).replace("Sentence", "Clause");
    let place = Place::new(&[("a.txt", &prose(3_000_000)), ("b.txt", &other)]);
    let split = Split::new(0.1, 0.1, 1 << 16);
    let sample = |limit| {
        let mut progress = Vec::new();
        let corpus = place.corpus();
        let sample = corpus
            .training_sample(
                &place.cache,
                &split,
                BadLinePolicy::Fatal,
                limit,
                &mut |read, of| {
                    progress.push((read, of));
                },
            )
            .unwrap();
        let total = corpus.total_bytes(&place.cache).unwrap();
        assert!(progress.is_sorted() && progress.iter().all(|&(_, of)| of == total));
        let bytes: usize = sample.texts.iter().map(String::len).sum();
        assert_eq!(sample.bytes, bytes as u64);
        sample
    };
    let all = sample(1 << 30);
    assert_eq!(Some(all.bytes), all.of);
    let train = joined(&place.stretches(&split), Part::Train).replace('|', "");
    assert_eq!(all.texts.concat(), train, "and nothing of the other parts");
    let some = sample(1 << 20);
    assert_eq!(some.of, all.of);
    assert!((600_000..1_300_000).contains(&some.bytes), "{}", some.bytes);
    // In every quarter of the text about as much.
    let mut quarters = [0; 4];
    for text in &some.texts {
        let at = train.find(text.as_str()).unwrap();
        quarters[4 * at / train.len()] += text.len();
    }
    assert!(quarters.iter().all(|&bytes| bytes > 60_000), "{quarters:?}");
    // The limit is on text: a compressed file is smaller than what it holds.
    let lines: String = (0..50_000)
        .map(|i| format!("{{\"text\": \"record {i} of many\"}}\n"))
        .collect();
    let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    let place = Place::new(&[]);
    fs::write(place.directory.path().join("a.jsonl.zst"), &packed).unwrap();
    let limit = 2 * packed.len() as u64;
    let (cache, fatal) = (&place.cache, BadLinePolicy::Fatal);
    let sample = place
        .corpus()
        .training_sample(cache, &split, fatal, limit, &mut |_, _| ())
        .unwrap();
    assert!(sample.of > Some(2 * limit) && sample.bytes <= limit + 100);
}

#[test]
fn heads_are_as_much_of_each_file_and_make_up_for_short_ones() {
    let files = [
        ("a.txt", prose(400_000)),
        ("b.txt", prose(3_000)),
        ("c.txt", prose(400_000).replace("Sentence", "Clause")),
        ("d.txt", prose(400_000).replace("Sentence", "Phrase")),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let place = Place::new(&files);
    let split = Split::new(0.1, 0.1, 1 << 12);
    let heads = |limit| {
        let corpus = place.corpus();
        let fatal = BadLinePolicy::Fatal;
        corpus
            .training_heads(&place.cache, &split, fatal, limit)
            .unwrap()
    };
    // A stretch is up to 128 KiB.
    let sample = heads(600_000);
    assert_eq!(sample.of, None);
    assert!(
        (600_000..740_000).contains(&sample.bytes),
        "{}",
        sample.bytes
    );
    let text = sample.texts.concat();
    for (word, least) in [("Sentence", 4_000), ("Clause", 4_000), ("Phrase", 4_000)] {
        assert!(text.matches(word).count() > least, "{word}");
    }
    let all = joined(&place.stretches(&split), Part::Train).replace('|', "");
    assert_eq!(
        heads(1 << 30).texts.concat(),
        all,
        "and nothing of the other parts"
    );
}
