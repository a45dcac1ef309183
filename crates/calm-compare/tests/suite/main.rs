//! A whole comparison on a made-up text: what it writes, that it goes on where it stopped, and what
//! it refuses.

mod loading;
mod searching;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use calm_compare::{CellKind, Comparison, Error, Event, Grid, Options, Result, compare};
use calm_data::CacheDir;
use calm_nn::RandomStream;

struct Place {
    directory: tempfile::TempDir,
    grid: Grid,
    /// Name of the comparison's directory.
    out: String,
}

impl Place {
    /// The debug grid cut down to a few steps on a text of random words.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let corpus = directory.path().join("text.txt");
        std::fs::write(&corpus, text()).unwrap();
        let mut grid = Grid::resolve("debug").unwrap();
        grid.set = vec![format!("data.corpus={}", corpus.display())];
        grid.set.extend(
            [
                "data.validation_fraction=0.2",
                "data.test_fraction=0.2",
                "model.vocab_size=280",
                "model.window=16",
                "model.autoencoder.hidden_size=16",
                "model.autoencoder.intermediate_size=24",
                "model.backbone.hidden_size=16",
                "model.backbone.intermediate_size=24",
                "model.local.hidden_size=16",
                "model.local.intermediate_size=24",
                "model.local.vector_size=8",
                "baseline.transformer.hidden_size=16",
                "baseline.transformer.intermediate_size=24",
                "autoencoder.steps=4",
                "autoencoder.eval_every=0",
                "lm.steps=6",
                "lm.eval_every=2",
                "lm.log_every=1",
                "baseline.training.steps=6",
                "baseline.training.eval_every=2",
                "baseline.training.log_every=1",
                "progress_eval.windows=2",
            ]
            .map(str::to_owned),
        );
        grid.protocol.windows = 3;
        grid.speed.prompt_tokens = 8;
        grid.speed.tokens = 8;
        grid.speed.repetitions = 1;
        grid.speed.batches = vec![1, 2];
        grid.cells[1].set = vec!["baseline.transformer.layers=1".to_owned()];
        grid.cells[3].set = vec![
            "model.chunk_size=4".to_owned(),
            "model.latent_size=8".to_owned(),
        ];
        Self {
            directory,
            grid,
            out: "out".to_owned(),
        }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join(&self.out)
    }

    fn cache(&self) -> CacheDir {
        CacheDir::at(self.directory.path().join("cache"))
    }

    /// Compares; interrupted after `stop` events of any kind, where one is given. Also returns the
    /// names of the cells whose training began.
    fn compare(&self, stop: Option<usize>) -> Result<(Option<Comparison>, Vec<String>)> {
        let mut events = 0;
        self.compare_until(|_, _| {
            events += 1;
            stop.is_some_and(|stop| events >= stop)
        })
    }

    /// Compares; interrupted where `stop` says so of a cell and an event.
    fn compare_until(
        &self,
        mut stop: impl FnMut(&str, &Event<'_>) -> bool,
    ) -> Result<(Option<Comparison>, Vec<String>)> {
        let (device, interrupt) = (Device::flex(), AtomicBool::new(false));
        let options = Options {
            out: self.out(),
            device: &device,
            device_name: "flex",
            info: Default::default(),
            cache: &self.cache(),
            interrupt: &interrupt,
        };
        let (mut current, mut trained) = (String::new(), Vec::new());
        let comparison = compare(&self.grid, &options, &mut |event| {
            if stop(&current, &event) {
                interrupt.store(true, Ordering::SeqCst);
            }
            match event {
                Event::CellStarted { name, .. } => current = name.to_owned(),
                Event::Train(calm_train::Event::Stepped { step: 1, .. }) => {
                    trained.push(current.clone());
                }
                _ => {}
            }
        })?;
        Ok((comparison, trained))
    }
}

fn text() -> String {
    const WORDS: [&str; 10] = [
        "river", "stone", "the", "of", "walks", "under", "morning", "a", "grey", "sings",
    ];
    let mut stream = RandomStream::new(1);
    let mut text = String::new();
    for _ in 0..80 {
        for _ in 0..40 {
            text.push_str(WORDS[stream.below(WORDS.len())]);
            text.push(' ');
        }
        text.push_str("\n\n");
    }
    text
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_comparison_scores_every_cell_on_the_same_positions_and_writes_its_files() {
    let place = Place::new();
    let comparison = place.compare(None).unwrap().0.unwrap();
    let cells = &comparison.cells;
    assert_eq!(cells.len(), 6);
    for cell in cells {
        // Windows of 16 tokens, multiples of 4 with four tokens left: 4, 8, 12.
        assert_eq!(cell.scores.positions, 9, "{}", cell.model);
        assert_eq!(cell.scores.unigram, cells[0].scores.unigram);
        assert_eq!(cell.cross_entropy.is_some(), cell.kind != CellKind::Calm);
        assert_eq!(cell.curve.len(), 3);
        assert!(cell.train_flops > 0.0 && cell.train_seconds > 0.0);
        let tokens_per_step = match cell.kind {
            CellKind::Calm => cell.chunk_size,
            CellKind::Local | CellKind::Baseline => 1,
        };
        let steps = 1000.0 / tokens_per_step as f64;
        for row in &cell.speed {
            assert_eq!(row.steps_per_1000_tokens, steps);
            assert!(row.tokens_per_s > 0.0 && row.first_token_seconds > 0.0);
        }
        let last = cell.curve.last().unwrap();
        approx::assert_relative_eq!(last.train_flops, cell.train_flops, max_relative = 1e-12);
    }
    // Twice the chunk, half the cache per token: the backbones are equal.
    let [k2, k4] = [&cells[3], &cells[4]].map(|c| (c.chunk_size, c.cache_bytes_per_token));
    assert_eq!((k2.0, k4.0, k2.1), (2, 4, 2.0 * k4.1));

    let names: Vec<&str> = comparison
        .techniques
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    for part in [
        "no cache",
        "KV cache",
        "lookup",
        "by token-32",
        "calm-k4",
        "by local-k4",
        "K = 4, local decoder",
        "fused",
    ] {
        assert!(
            names.iter().any(|n| n.contains(part)),
            "{part} in {names:?}"
        );
    }
    let drafted = comparison
        .techniques
        .iter()
        .find(|t| t.name.contains("by token-32"));
    assert!(drafted.unwrap().acceptance.is_some());

    let out = place.out();
    let csv = read(&out.join("cells.csv"));
    assert_eq!(csv.lines().count(), 7);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns));
    let json: serde_json::Value =
        serde_json::from_str(&read(&out.join("comparison.json"))).unwrap();
    assert_eq!(json["verdicts"].as_array().unwrap().len(), 3);
    // What is kept of every window is short: it is most of the file.
    for cell in json["cells"].as_array().unwrap() {
        for windows in cell["scores"]["window_brier"].as_array().unwrap() {
            for brier in windows.as_array().unwrap() {
                let text = brier.to_string();
                assert!(text.len() <= "-0.12345".len(), "{text}");
            }
        }
    }
    let page = read(&out.join("compare.html"));
    for part in [
        "calm-k4",
        "Ways to be efficient",
        "cargo xtask compare",
        "<svg",
        "unigram",
        // Two runs are no scaling law.
        "No law was fitted",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for chart in [
        "training-flops",
        "training-seconds",
        "inference-flops",
        "speed",
    ] {
        assert!(read(&out.join(format!("{chart}.svg"))).starts_with("<svg"));
    }
}

/// Interrupted again and again, anywhere, it gets done, and no finished cell is trained twice.
#[test]
fn interrupted_anywhere_it_repeats_no_finished_cell() {
    let place = Place::new();
    let whole = Place::new();
    let expected = whole.compare(None).unwrap().0.unwrap();
    let (mut trained, mut rounds) = (Vec::new(), 0);
    let comparison = loop {
        rounds += 1;
        assert!(rounds < 100, "it must end");
        // 25 events are about one stage of one cell.
        let (comparison, names) = place.compare(Some(25)).unwrap();
        trained.extend(names);
        if let Some(comparison) = comparison {
            break comparison;
        }
    };
    assert!(rounds > 3, "interrupted {rounds} times");
    // A first step happens once per stage of a cell: one for a baseline, two for a CALM.
    trained.sort();
    let mut expected_names: Vec<String> = Vec::new();
    for cell in place.grid.cells().unwrap() {
        let stages = if cell.kind == CellKind::Calm { 2 } else { 1 };
        expected_names.extend(std::iter::repeat_n(cell.name(), stages));
    }
    expected_names.sort();
    assert_eq!(trained, expected_names);
    for (a, b) in comparison.cells.iter().zip(&expected.cells) {
        assert_eq!(a.scores, b.scores, "{}", a.model);
        let costs = |c: &calm_compare::CellRecord| (c.train_flops.to_bits(), c.curve.len());
        assert_eq!(costs(a), costs(b));
    }

    // All done: nothing is trained, scored or timed again, and other settings are refused.
    let again = place.compare(None).unwrap();
    assert!(again.1.is_empty());
    let again = again.0.unwrap();
    assert_eq!(again.cells, comparison.cells);
    assert_eq!(again.techniques, comparison.techniques);
    let mut place = place;
    place.grid.protocol.draws += 1;
    let error = place.compare(None).unwrap_err();
    assert!(matches!(error, Error::OtherCell { .. }), "{error}");
    assert!(error.to_string().contains("--out"), "{error}");
}

#[test]
fn grids_that_compare_unequal_work_are_refused() {
    let refuse = |change: fn(&mut Grid)| {
        let mut grid = Grid::resolve("debug").unwrap();
        change(&mut grid);
        grid.cells().unwrap_err().to_string()
    };
    for (change, word) in [
        (
            (|g| g.cells[2].set.push("model.window=32".into())) as fn(&mut Grid),
            "window of 32",
        ),
        (|g| g.cells[2].set.push("data.corpus=gatsby".into()), "data"),
        (
            |g| g.cells[2].set.push("model.vocab_size=300".into()),
            "vocabulary",
        ),
        (
            |g| g.protocol.every = 2,
            "protocol.every = 2 is no multiple of K = 4",
        ),
        (|g| g.speed.tokens = 6, "speed.tokens"),
        (|g| g.speed.prompt_tokens = 400, "longer than the window"),
        (|g| g.cells[1].name = "a/b".into(), "letters"),
        (|g| g.cells[1].name = "token-64".into(), "twice"),
        (|g| g.cells.clear(), "no cells"),
        (|g| g.cells[1].seeds.clear(), "no seeds"),
        (
            |g| g.cells[2].set.push("progress_eval.windows=8".into()),
            "progress_eval.windows = 8",
        ),
        (
            |g| {
                g.cells[1].name = "token-64".into();
                g.cells[1].seeds = vec![3];
            },
            "differ in their seeds alone",
        ),
        (|g| g.protocol.draws = 1, "draws"),
        (|g| g.speed.batches = vec![0], "batches"),
        (|g| g.speed.tokens = 4, "one step"),
        (|g| g.protocol.windows = 1, "windows"),
        (|g| g.protocol.every = 64, "no position"),
    ] {
        let message = refuse(change);
        assert!(message.contains(word), "{word}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let mut grid = Grid::resolve("debug").unwrap();
    grid.cells[0].set.push("baseline.lrr=1".into());
    assert!(
        grid.cells()
            .unwrap_err()
            .to_string()
            .contains("baseline.lr")
    );
    let unknown = Grid::resolve("nnao").unwrap_err().to_string();
    assert!(unknown.contains("nano"), "{unknown}");
    assert!(matches!(
        Grid::resolve("missing.toml"),
        Err(Error::Io { .. })
    ));
}

#[test]
fn every_grid_in_the_program_is_valid() {
    for (name, _) in calm_compare::GRIDS {
        let grid = Grid::resolve(name).unwrap();
        assert_eq!(grid.name, name);
        assert!(!grid.cells().unwrap().is_empty());
    }
}

/// Two CALMs that differ in their backbones alone: the autoencoder is trained once, and counts in
/// the work of both.
#[test]
fn cells_whose_autoencoders_are_alike_train_one() {
    let mut place = Place::new();
    let mut wide = place.grid.cells[3].clone();
    wide.name = "wide".to_owned();
    wide.set.push("model.backbone.hidden_size=32".to_owned());
    let mut other = wide.clone();
    other.name = "other".to_owned();
    other.set.push("autoencoder.steps=3".to_owned());
    place.grid.cells = vec![place.grid.cells[3].clone(), wide, other];
    let mut stages = Vec::new();
    let (comparison, _) = place
        .compare_until(|cell, event| {
            if let Event::Train(calm_train::Event::StageStarted { stage, .. }) = event {
                stages.push(format!("{cell} {stage}"));
            }
            false
        })
        .unwrap();
    let narrow = format!("{}-seed1", place.grid.cells[0].name);
    let expected = [
        format!("{narrow} autoencoder"),
        format!("{narrow} lm"),
        "wide-seed1 lm".to_owned(),
        "other-seed1 autoencoder".to_owned(),
        "other-seed1 lm".to_owned(),
    ];
    assert_eq!(stages, expected);
    let cells = comparison.unwrap().cells;
    let autoencoder = |i: usize| cells[i].train_flops - cells[i].train_flops_without_autoencoder;
    approx::assert_relative_eq!(autoencoder(0), autoencoder(1), max_relative = 1e-9);
    assert!(autoencoder(2) < autoencoder(0));
    assert_eq!(cells[0].autoencoder_tokens, cells[1].autoencoder_tokens);
    // Found again, also where the comparison has moved: nothing is trained anew.
    for name in ["out", "moved"] {
        std::fs::rename(place.out(), place.directory.path().join(name)).unwrap();
        place.out = name.to_owned();
        let (_, again) = place.compare(None).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }
}
