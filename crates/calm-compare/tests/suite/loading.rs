//! Cells that are loaded from finished runs: what they say, that the runs are only read, and what
//! is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use calm_compare::{CellConfig, CellKind, CellRecord, Error, Event, Grid};
use calm_records::{MetricRow, RunDir, RunInfo, Stage, read_jsonl};
use calm_train::{Options, RunEnd, Stages, preset, resume, train};

use crate::{Place, read};

const K4: [&str; 2] = ["model.chunk_size=4", "model.latent_size=8"];

impl Place {
    /// A token model of one layer and a CALM with K = 4.
    fn of_two() -> Self {
        let mut place = Self::new();
        let mut cells = std::mem::take(&mut place.grid.cells);
        place.grid.cells = vec![cells.remove(1), cells.remove(2)];
        assert_eq!(place.grid.cells[1].set, K4);
        place
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    /// A run as `calm train` makes it, on the grid's preset and overrides and `set`.
    fn run(&self, name: &str, set: &[&str], stages: &[Stages]) -> String {
        let mut overrides = self.grid.set.clone();
        overrides.push("samples.prompts=[]".to_owned());
        overrides.extend(set.iter().map(|s| (*s).to_owned()));
        let experiment = preset::resolve(&self.grid.preset, &overrides).unwrap();
        let device = calm_lm::NamedDevice::open("flex").unwrap();
        let interrupt = AtomicBool::new(false);
        for (i, &stages) in stages.iter().enumerate() {
            let options = Options {
                out: self.path(name).into(),
                stages,
                device: &device,
                others: &[],
                device_timeout: calm_train::DEVICE_TIMEOUT,
                all_reduce: false,
                cache: &self.cache(),
                interrupt: &interrupt,
            };
            let end = if i == 0 {
                train(
                    experiment.clone(),
                    RunInfo::default(),
                    &options,
                    &mut |_| {},
                )
            } else {
                resume(&options, &mut |_| {})
            };
            assert_eq!(end.unwrap(), RunEnd::Complete);
        }
        self.path(name)
    }
}

fn loaded(name: &str, kind: CellKind, run: &str) -> CellConfig {
    CellConfig {
        name: name.to_owned(),
        kind,
        set: Vec::new(),
        seeds: Vec::new(),
        run: Some(run.to_owned()),
    }
}

/// Every file below a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &str, to: &str) -> String {
    for (path, bytes) in contents(Path::new(from)) {
        let target = Path::new(to).join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(&target, bytes).unwrap();
        }
    }
    to.to_owned()
}

fn replace(path: PathBuf, old: &str, new: &str) {
    let text = read(&path);
    assert!(text.contains(old), "{old} in {text}");
    std::fs::write(path, text.replacen(old, new, 1)).unwrap();
}

/// Trained by `calm train` and loaded, a cell says what it says trained by the comparison; also
/// where the text gives fewer tokens than the vocabulary that was asked for.
#[test]
fn a_loaded_run_says_what_a_trained_cell_says() {
    let mut place = Place::of_two();
    place.grid.set.push("model.vocab_size=4000".to_owned());
    let expected = place.compare(None).unwrap().0.unwrap();

    let set = [&K4[..], &["model.vocab_size=3000", "progress_eval.every=4"]].concat();
    let run = place.run("run", &set, &[Stages::All]);
    let before = contents(Path::new(&run));
    place.grid.cells[1] = loaded("calm-k4", CellKind::Calm, &run);
    place.out = "loaded".to_owned();
    let scoring = |cell: &str, event: &Event<'_>| {
        cell == "calm-k4-seed1" && matches!(event, Event::Train(calm_train::Event::Scoring { .. }))
    };
    let (interrupted, trained) = place.compare_until(scoring).unwrap();
    assert!(interrupted.is_none(), "while the loaded cell is scored");
    assert_eq!(trained, ["token-32-seed1"]);
    let (comparison, trained) = place.compare(None).unwrap();
    let comparison = comparison.unwrap();
    assert!(trained.is_empty(), "{trained:?}");

    let [token, calm] = &comparison.cells[..] else {
        panic!("two cells");
    };
    let asked = "vocab_size = 4000";
    assert!(token.made_with.experiment.contains(asked));
    assert!(!calm.made_with.experiment.contains("vocab_size = 3000"));
    assert_eq!(calm.made_with.loaded.as_ref().unwrap().run, run);
    for (found, expected) in comparison.cells.iter().zip(&expected.cells) {
        assert_eq!(found.scores, expected.scores, "{}", found.model);
        let costs = |c: &CellRecord| (c.seed, c.chunk_size, c.parameters, c.train_flops);
        assert_eq!(costs(found), costs(expected));
        assert_eq!(found.curve.len(), 3);
        for (a, b) in found.curve.iter().zip(&expected.curve) {
            let quality = &a.window_brier;
            assert_eq!((a.tokens, quality), (b.tokens, &b.window_brier));
        }
    }
    assert_eq!(contents(Path::new(&run)), before, "the run is only read");
    let cell = place.out().join("cells/calm-k4-seed1");
    let files: Vec<PathBuf> = contents(&cell).into_keys().collect();
    assert_eq!(files, [cell.join("cell.json")]);

    let page = read(&place.out().join("compare.html"));
    assert!(page.contains(&format!("calm-k4 seed 1 from {run};")));
    let grid = place.out().join("grid.toml");
    let grid = Grid::resolve(grid.to_str().unwrap()).unwrap();
    assert_eq!(grid, place.grid);
    // Records of trained cells are as they were before there were loaded ones.
    let token = read(&place.out().join("cells/token-32-seed1/cell.json"));
    assert!(!token.contains("loaded"));

    let mut made = 0;
    let again = place.compare_until(|_, event| {
        made += usize::from(matches!(
            event,
            Event::Train(calm_train::Event::Scoring { .. } | calm_train::Event::Stepped { .. })
                | Event::MeasuringTechniques
        ));
        false
    });
    let again = again.unwrap().0.unwrap();
    assert_eq!(
        (again.cells, again.techniques),
        (comparison.cells, comparison.techniques)
    );
    assert_eq!(made, 0, "nothing is made again");
    assert_eq!(contents(Path::new(&run)), before);

    // Another run in its place is not taken for it.
    replace(
        RunDir::open(&run).unwrap().run(),
        "\"started\": \"\"",
        "\"started\": \"later\"",
    );
    let error = place.compare(None).unwrap_err();
    assert!(matches!(error, Error::OtherCell { .. }), "{error}");
}

/// A run that holds both models can be both cells, with no training at all. It was scored at other
/// positions on the way, so that its learning curves are their ends.
#[test]
fn one_run_gives_both_its_models() {
    let mut place = Place::of_two();
    let expected = place.compare(None).unwrap().0.unwrap();
    let set = [&K4[..], &["baseline.transformer.layers=1"]].concat();
    let run = place.run("run", &set, &[Stages::All, Stages::Baseline]);
    place.grid.cells = vec![
        loaded("token-32", CellKind::Baseline, &run),
        loaded("calm-k4", CellKind::Calm, &run),
    ];
    place.out = "loaded".to_owned();
    let (comparison, trained) = place.compare(None).unwrap();
    assert!(trained.is_empty(), "{trained:?}");
    let comparison = comparison.unwrap();
    let rows: Vec<MetricRow> = read_jsonl(&RunDir::open(&run).unwrap().metrics()).unwrap();
    let seconds = |stage: Stage| {
        let last = rows.iter().rev().find(|row| row.stage == stage);
        last.unwrap().seconds
    };
    let spent = [
        seconds(Stage::Baseline),
        seconds(Stage::Autoencoder) + seconds(Stage::Lm),
    ];
    for (i, (found, expected)) in comparison.cells.iter().zip(&expected.cells).enumerate() {
        assert_eq!(found.scores, expected.scores, "{}", found.model);
        assert_eq!(found.train_seconds, spent[i]);
        let [end] = &found.curve[..] else {
            panic!("{} points", found.curve.len());
        };
        let last = expected.curve.last().unwrap();
        assert_eq!(end.window_brier, last.window_brier);
        assert_eq!(end.train_flops, found.train_flops);
        assert_eq!(end.train_seconds, found.train_seconds);
    }
    // The ends alone are enough for a verdict.
    let json = read(&place.out().join("comparison.json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdicts"].as_array().unwrap().len(), 1);
}

#[test]
fn runs_that_can_not_stand_beside_the_others_are_refused() {
    let place = Place::of_two();
    let run = place.run("run", &K4, &[Stages::All]);
    let changed = |name: &str, change: &dyn Fn(&RunDir)| {
        let copied = copy(&run, &place.path(name));
        change(&RunDir::open(&copied).unwrap());
        copied
    };
    let remove = |path: PathBuf| std::fs::remove_file(path).unwrap();
    let unfinished = changed("unfinished", &|run| remove(run.summary()));
    let longer = changed("longer", &|run| {
        replace(run.config(), "[lm]\nsteps = 6", "[lm]\nsteps = 8");
    });
    let damaged = changed("damaged", &|run| {
        std::fs::remove_dir_all(run.checkpoints(Stage::Lm)).unwrap();
    });
    let unread = changed("unread", &|run| replace(run.config(), "seed", "sead"));
    let device = changed("device", &|run| {
        replace(run.run(), "\"flex\"", "\"vulkan\"");
    });
    let host = changed("host", &|run| {
        replace(run.run(), "\"cpus\": 0", "\"cpus\": 9")
    });
    type Change<'a> = &'a dyn Fn(&mut Grid);
    let set = |setting: &str| {
        let setting = setting.to_owned();
        move |grid: &mut Grid| grid.set.push(setting.clone())
    };
    let other_data = set("data.test_fraction=0.3");
    let other_window = set("model.window=20");
    let other_vocabulary = set("model.vocab_size=270");
    let cases: [(&str, Change<'_>, &str); 13] = [
        (
            &run,
            &|g| g.cells[1].set.push("lm.steps=2".into()),
            "leave both out",
        ),
        (&run, &|g| g.cells[1].seeds.push(1), "leave both out"),
        (&place.path("nowhere"), &|_| (), "is none"),
        (&unfinished, &|_| (), "is not finished"),
        (&longer, &|_| (), "asks for"),
        (&damaged, &|_| (), "checkpoints/lm/latest"),
        (&unread, &|_| (), "unknown key 'sead'"),
        (&device, &|_| (), "trained on vulkan"),
        (&host, &|_| (), "9 threads"),
        (
            &run,
            &|g| g.cells[1].kind = CellKind::Baseline,
            "holds no finished token model",
        ),
        (&run, &other_data, "trained on another text or tokenizer"),
        (
            &run,
            &other_window,
            "a window of 16 tokens where token-32-seed1 has 20",
        ),
        (&run, &other_vocabulary, "vocabulary of 280 tokens"),
    ];
    let mut trial = Place { ..place };
    let grid = trial.grid.clone();
    let mut refuse = |run: &str, change: Change<'_>, word: &str| {
        trial.grid = grid.clone();
        trial.grid.cells[1] = loaded("calm-k4", CellKind::Calm, run);
        change(&mut trial.grid);
        let error = trial.compare(None).unwrap_err();
        let message = error.to_string();
        let right = matches!(error, Error::BadRun { .. } | Error::BadGrid { .. });
        assert!(right && message.contains(word), "{word}: {message}");
        assert!(
            message.contains("calm-k4") && message.contains(run),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!trial.out().exists(), "nothing is begun: {message}");
    };
    for (run, change, word) in cases {
        refuse(run, change, word);
    }
    // A path in the grid's text stays the same; what it names does not.
    let corpus = Path::new(&run).with_file_name("text.txt");
    let text = read(&corpus);
    std::fs::write(&corpus, text + "More of it.\n").unwrap();
    refuse(&run, &|_| (), "another text");
}

/// Nothing may be written into a run, nor a record beside a run that it is not about.
#[test]
fn a_run_is_no_place_for_a_comparison() {
    let mut place = Place::of_two();
    let run = place.run("run", &K4, &[Stages::All]);
    place.grid.cells[1] = loaded("calm-k4", CellKind::Calm, &run);
    place.out = "run/../run/compare".to_owned();
    let message = place.compare(None).unwrap_err().to_string();
    assert!(message.contains("give another --out"), "{message}");
    place.out = "out".to_owned();
    copy(&run, &place.path("out/cells/calm-k4-seed1"));
    let error = place.compare(None).unwrap_err();
    assert!(matches!(error, Error::OtherCell { .. }), "{error}");
}

/// A loaded run may be a further seed of a trained model, and must then be that model.
#[test]
fn a_loaded_run_can_be_one_more_seed() {
    let mut place = Place::of_two();
    let set = |more: &[&'static str]| [&K4[..], &["seed=2"], more].concat();
    let run = place.run("run", &set(&["lm.eval_every=3"]), &[Stages::All]);
    let other = place.run("other", &set(&["lm.steps=4"]), &[Stages::All]);
    place
        .grid
        .cells
        .push(loaded("calm-k4", CellKind::Calm, &other));
    let message = place.compare(None).unwrap_err().to_string();
    assert!(message.contains("differ in their seeds alone"), "{message}");
    place.grid.cells[2] = loaded("calm-k4", CellKind::Calm, &run);
    let comparison = place.compare(None).unwrap().0.unwrap();
    let seeds: Vec<u64> = comparison.cells.iter().map(|c| c.seed).collect();
    assert_eq!(seeds, [1, 1, 2]);
    let page = read(&place.out().join("compare.html"));
    assert!(page.contains("calm-k4 seed 2 from"));
}
