//! How fast text is streamed from files, and how much memory that takes: reading, decompressing, encoding
//! and shuffling, without a model.
//!
//! `cargo xtask bench stream` starts this program.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a program.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use calm_data::{BadLinePolicy, CacheDir, Corpus, Cursor, Part, Rank, StreamConfig, Tokenizer};
use calm_nn::{RandomStream, mix};
use calm_train::preset;
use rayon::prelude::*;
use serde::Serialize;

const USAGE: &str = "usage: stream [--gigabytes N] [--preset NAME] [--corpus PATH] [--json FILE]
  --gigabytes N   made-up text, kept in target/ (about 0.4 GB of disk for each) [default: 10]
  --preset NAME   whose vocabulary, window and buffer are taken [default: debug]
  --corpus PATH   a text of yours instead of made-up text
  --json FILE     also write the rows here";

/// Bytes of made-up text in a file.
const SHARD_BYTES: u64 = 256 << 20;
/// Tokens between rows.
const ROW_TOKENS: u64 = 100_000_000;
/// Words of the made-up language.
const WORDS: usize = 50_000;

/// Where the stream stands.
#[derive(Serialize)]
struct Row {
    tokens: u64,
    seconds: f64,
    /// Since the row before.
    tokens_per_s: f64,
    /// Bytes in memory; none where the system does not tell.
    resident: Option<u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut gigabytes = 10_u64;
    let mut name = "debug".to_owned();
    let (mut own, mut json) = (None, None::<PathBuf>);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match arg.as_str() {
            "--gigabytes" => gigabytes = value.parse().map_err(|_| USAGE)?,
            "--preset" => name = value,
            "--corpus" => own = Some(value),
            "--json" => json = Some(value.into()),
            _ => return Err(USAGE.into()),
        }
    }
    calm_alloc::keep_pages();
    let experiment = preset::resolve(&name, &[])?;
    let (text, corpus) = match own {
        Some(path) => (None, path),
        None => {
            let (bytes, path) = make_up(gigabytes)?;
            (Some(bytes), path.display().to_string())
        }
    };
    let cache = CacheDir::at("target/none");
    let (data, policy) = (&experiment.data, BadLinePolicy::Fatal);
    let corpus = Corpus::parse(&[corpus])?;
    let split = data.split();
    let sample = corpus.training_heads(&cache, &split, policy, 8 << 20)?;
    let tokenizer = Tokenizer::train(sample.texts.into_iter(), experiment.model.vocab_size)?;
    let shards = corpus.shards(&cache, &split, policy)?;
    let config = StreamConfig {
        window: experiment.model.window,
        chunk: experiment.model.chunk_size,
        buffer_tokens: data.stream.buffer_tokens,
        rank: Rank::ONLY,
    };
    let files = corpus.total_bytes(&cache)?;
    println!(
        "preset {name}: {} tokens of vocabulary, windows of {}, {} tokens shuffled at a time; {} files of \
         {:.2} GB, {} threads",
        tokenizer.vocab_size(),
        config.window,
        config.buffer_tokens,
        shards.count(),
        files as f64 / 1e9,
        rayon::current_num_threads(),
    );
    let begun = Instant::now();
    let mut stream = shards.stream(&tokenizer, config, Cursor::new(1))?;
    println!("first block after {:.1} s", begun.elapsed().as_secs_f64());
    println!(
        "{:>12} {:>9} {:>12} {:>10}",
        "tokens", "seconds", "tokens/s", "memory MB"
    );
    let (mut rows, mut tokens, mut before) = (Vec::new(), 0, (0, 0.0));
    let mut last = 0.0;
    loop {
        stream.next_window()?;
        let is_over = stream.cursor().epoch > 0;
        if !is_over {
            tokens += config.window as u64;
            // What comes after the epoch's last window is of the next.
            last = begun.elapsed().as_secs_f64();
        }
        if is_over || tokens - before.0 >= ROW_TOKENS {
            let seconds = last;
            let row = Row {
                tokens,
                seconds,
                tokens_per_s: (tokens - before.0) as f64 / (seconds - before.1),
                resident: resident(),
            };
            let memory = row
                .resident
                .map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
            println!(
                "{tokens:>12} {seconds:>9.1} {:>12.0} {memory:>10}",
                row.tokens_per_s
            );
            before = (tokens, seconds);
            rows.push(row);
        }
        if is_over {
            break;
        }
    }
    println!(
        "in all {:.0} tokens/s, {:.2} MB/s of files{}",
        tokens as f64 / before.1,
        files as f64 / 1e6 / before.1,
        text.map_or(String::new(), |bytes| format!(
            ", {:.2} MB/s of text read, {:.2} encoded",
            bytes as f64 / 1e6 / before.1,
            split.share(Part::Train) * bytes as f64 / 1e6 / before.1
        ))
    );
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    Ok(())
}

/// Memory of this process now, in bytes.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A directory of files of made-up text, written where they are not there yet, and the bytes of text.
fn make_up(gigabytes: u64) -> Result<(u64, PathBuf), Box<dyn Error>> {
    let directory = Path::new("target").join(format!("stream-text-{gigabytes}"));
    fs::create_dir_all(&directory)?;
    let bytes = gigabytes * 1_000_000_000;
    let shards = bytes.div_ceil(SHARD_BYTES);
    let words = words();
    let begun = Instant::now();
    (0..shards).into_par_iter().try_for_each(|shard| {
        let path = directory.join(format!("{shard:04}.jsonl.zst"));
        let length = SHARD_BYTES.min(bytes - shard * SHARD_BYTES);
        match path.exists() {
            true => Ok(()),
            false => write_shard(&path, shard, length, &words),
        }
    })?;
    println!(
        "{gigabytes} GB of made-up text in {} ({:.0} s)",
        directory.display(),
        begun.elapsed().as_secs_f64()
    );
    Ok((bytes, directory))
}

/// Words in Zipf's proportions: the word of a random place in the list is distributed as in a text.
fn words() -> Vec<String> {
    let mut stream = RandomStream::new(1);
    let syllables = [
        "ka", "lo", "mi", "ren", "tu", "sha", "vel", "no", "pi", "dar", "os", "em",
    ];
    let mut word = || -> String {
        let count = 1 + stream.below(4);
        (0..count)
            .map(|_| syllables[stream.below(syllables.len())])
            .collect()
    };
    let kinds: Vec<String> = (0..WORDS).map(|_| word()).collect();
    let total: f64 = (1..=WORDS).map(|rank| 1.0 / rank as f64).sum();
    let places = 1 << 19;
    let mut list = Vec::with_capacity(places + WORDS);
    for (i, kind) in kinds.into_iter().enumerate() {
        let share = places as f64 / (total * (i + 1) as f64);
        list.extend(std::iter::repeat_n(kind, (share.round() as usize).max(1)));
    }
    list
}

fn write_shard(path: &Path, shard: u64, length: u64, words: &[String]) -> io::Result<()> {
    let aside = path.with_extension("writing");
    let mut encoder = zstd::Encoder::new(BufWriter::new(File::create(&aside)?), 1)?;
    let mut stream = RandomStream::new(mix(1, shard));
    let (mut written, mut line) = (0, String::new());
    while written < length {
        line.clear();
        line.push_str("{\"text\": \"");
        for i in 1..=20 + stream.below(1_500) {
            line.push_str(&words[stream.below(words.len())]);
            line.push_str(match i % 11 {
                0 => ". ",
                5 => ", ",
                _ => " ",
            });
        }
        line.push_str("\"}\n");
        encoder.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    encoder.finish()?.flush()?;
    fs::rename(aside, path)
}
