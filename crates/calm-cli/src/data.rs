//! `calm data`: fetch and tokenize once.

use std::path::PathBuf;

use calm_data::{CacheDir, Part};
use calm_train::{data, preset};
use clap::Subcommand;

use crate::error::Result;
use crate::output::print;
use crate::progress::Progress;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch a corpus, train its tokenizer and cache its tokens.
    Prepare {
        /// A preset (debug, nano, ..) or a complete .toml file.
        #[arg(long, default_value = "nano")]
        preset: String,
        /// Named corpora or paths, instead of the preset's.
        #[arg(long, num_args = 1.., value_name = "NAME|PATH")]
        corpus: Vec<String>,
        /// Override a value of the configuration.
        #[arg(long, num_args = 1.., value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Also write the tokenizer here.
        #[arg(long, value_name = "FILE")]
        tokenizer: Option<PathBuf>,
    },
}

pub fn run(args: Args) -> Result<()> {
    let Command::Prepare {
        preset,
        corpus,
        set,
        tokenizer: tokenizer_path,
    } = args.command;
    let mut experiment = preset::resolve(&preset, &set)?;
    if !corpus.is_empty() {
        experiment.data.corpus = corpus;
    }
    let cache = CacheDir::default_location()?;
    let mut progress = Progress::new();
    let mut observe = |event: calm_train::Event<'_>| progress.show(event);
    let (vocab_size, window) = (experiment.model.vocab_size, experiment.model.window);
    data::fit_split(&mut experiment.data, window, &cache, &mut observe)?;
    let split = experiment.data.split();
    let tokenizer = data::tokenizer(&experiment.data, vocab_size, &cache, &mut observe)?;
    if let Some(path) = tokenizer_path {
        tokenizer.save(&path)?;
    }
    let store = data::token_store(&experiment.data, &split, &tokenizer, &cache, &mut observe)?;
    let mut lines = String::new();
    for part in Part::ALL {
        lines.push_str(&format!(
            "{:<12}{} tokens, {} documents or stretches of them\n",
            part.name(),
            store.part(part).len(),
            store.documents()[part as usize],
        ));
    }
    if experiment.data.stream.enabled {
        lines.push_str(
            "data.stream.enabled: these are the first tokens of each part, the rest is encoded in training; \
             data.stream.enabled=false encodes all of it now\n",
        );
    }
    print(&format!("{lines}tokens: {}\n", store.path().display()))
}
