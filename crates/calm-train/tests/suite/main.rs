//! Tests of whole runs, on a made-up text and a model that trains in seconds.

mod baseline;
mod checkpointing;
mod data;
mod failures;
mod golden_losses;
mod initial;
mod local;
mod parallel;
mod precision;
mod pretrained;
mod resume;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use calm_data::CacheDir;
use calm_lm::NamedDevice;
use calm_nn::RandomStream;
use calm_records::{MetricRow, RunDir, Stage, read_jsonl};
use calm_train::{Event, Experiment, Options, Result, RunEnd, Stages, preset, resume, train};

/// A place for one test: text, cache and run directory.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    pub(crate) experiment: Experiment,
    /// Devices beside the first.
    pub(crate) others: Vec<NamedDevice>,
    pub(crate) all_reduce: bool,
}

impl Place {
    /// A text of random words, and the debug preset cut down to a few steps on it.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let corpus = directory.path().join("text.txt");
        std::fs::write(&corpus, text()).unwrap();
        let set = [
            format!("data.corpus={}", corpus.display()),
            "data.validation_fraction=0.15".into(),
            "data.test_fraction=0.15".into(),
            "model.vocab_size=280".into(),
            "model.window=16".into(),
            "model.autoencoder.hidden_size=16".into(),
            "model.autoencoder.intermediate_size=24".into(),
            "model.backbone.hidden_size=16".into(),
            "model.backbone.intermediate_size=24".into(),
            "autoencoder.steps=7".into(),
            "autoencoder.log_every=1".into(),
            "autoencoder.eval_every=3".into(),
            "autoencoder.checkpoint_every=2".into(),
            "autoencoder.accumulate=2".into(),
            "lm.steps=6".into(),
            "lm.log_every=1".into(),
            "lm.eval_every=3".into(),
            "lm.checkpoint_every=2".into(),
            "baseline.transformer.hidden_size=16".into(),
            "baseline.transformer.intermediate_size=24".into(),
            "baseline.training.steps=6".into(),
            "baseline.training.log_every=1".into(),
            "baseline.training.eval_every=3".into(),
            "baseline.training.checkpoint_every=2".into(),
            "eval.windows=4".into(),
            "progress_eval.windows=2".into(),
            "samples.tokens=6".into(),
            "samples.pool=8".into(),
        ];
        let experiment = preset::resolve("debug", &set).unwrap();
        Self {
            directory,
            experiment,
            others: Vec::new(),
            all_reduce: false,
        }
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn cache(&self) -> CacheDir {
        CacheDir::at(self.directory.path().join("cache"))
    }

    /// Starts a run, interrupted after `stop` = (stage, step) where one is given.
    pub(crate) fn train(
        &self,
        name: &str,
        stages: Stages,
        stop: Option<(Stage, u64)>,
    ) -> Result<RunEnd> {
        self.go(name, stages, stop, Some(self.experiment.clone()))
    }

    /// Goes on with a run.
    pub(crate) fn resume(
        &self,
        name: &str,
        stages: Stages,
        stop: Option<(Stage, u64)>,
    ) -> Result<RunEnd> {
        self.go(name, stages, stop, None)
    }

    /// Goes on with a run to its end; `watch` receives its events.
    pub(crate) fn resume_watched(
        &self,
        name: &str,
        stages: Stages,
        watch: &mut dyn FnMut(&Event<'_>),
    ) -> Result<RunEnd> {
        self.watched(name, stages, None, None, watch)
    }

    fn go(
        &self,
        name: &str,
        stages: Stages,
        stop: Option<(Stage, u64)>,
        experiment: Option<Experiment>,
    ) -> Result<RunEnd> {
        self.watched(name, stages, stop, experiment, &mut |_| {})
    }

    fn watched(
        &self,
        name: &str,
        stages: Stages,
        stop: Option<(Stage, u64)>,
        experiment: Option<Experiment>,
        watch: &mut dyn FnMut(&Event<'_>),
    ) -> Result<RunEnd> {
        let (device, interrupt) = (NamedDevice::open("flex").unwrap(), AtomicBool::new(false));
        let cache = self.cache();
        let out = self.run(name);
        let options = Options {
            out,
            stages,
            device: &device,
            others: &self.others,
            device_timeout: std::time::Duration::from_secs(60),
            all_reduce: self.all_reduce,
            cache: &cache,
            interrupt: &interrupt,
        };
        // The flag is set before the step ends, as Ctrl-C does.
        let mut observe = |event: Event<'_>| {
            watch(&event);
            if let Event::Stepped { stage, step, .. } = event
                && Some((stage, step)) == stop
            {
                interrupt.store(true, Ordering::SeqCst);
            }
        };
        match experiment {
            Some(experiment) => train(experiment, Default::default(), &options, &mut observe),
            None => resume(&options, &mut observe),
        }
    }
}

/// What was logged: stage, step, and the bits of loss, gradient norm and learning rate.
pub(crate) fn logged(run: &Path) -> Vec<(Stage, u64, [u64; 3])> {
    let rows: Vec<MetricRow> = read_jsonl(&RunDir::open(run).unwrap().metrics()).unwrap();
    rows.iter()
        .map(|r| {
            (
                r.stage,
                r.step,
                [r.loss, r.grad_norm, r.lr].map(f64::to_bits),
            )
        })
        .collect()
}

pub(crate) fn text() -> String {
    const WORDS: [&str; 12] = [
        "river", "stone", "the", "of", "walks", "under", "morning", "a", "grey", "sings", "and",
        "house",
    ];
    let mut stream = RandomStream::new(1);
    let mut text = String::new();
    for _ in 0..60 {
        for _ in 0..120 {
            text.push_str(WORDS[stream.below(WORDS.len())]);
            text.push(' ');
        }
        text.push_str("\n\n");
    }
    text
}
