//! What one cell is: its kind, what may be searched in it, its experiment, where it is loaded from,
//! and how it is judged.

use calm_eval::EvalConfig;
use calm_records::Stage;
use calm_train::Experiment;
use serde::{Deserialize, Serialize};

/// One protocol for all: same windows, same positions, same held-out text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolConfig {
    /// Windows of held-out text.
    pub windows: usize,
    /// Positions scored: the multiples of this many tokens, a multiple of every K.
    pub every: usize,
    /// CALM: draws per position, all pairs used.
    pub draws: usize,
    /// Baseline: prefixes drawn per position, whose probabilities are exact.
    pub token_draws: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl ProtocolConfig {
    pub(crate) fn eval(&self, draws: usize) -> EvalConfig {
        EvalConfig {
            windows: self.windows,
            draws,
            every: self.every,
            seed: self.seed,
        }
    }
}

/// How decoding is timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeedConfig {
    /// Texts generated side by side.
    pub batches: Vec<usize>,
    /// Tokens of prompt, a multiple of every K.
    pub prompt_tokens: usize,
    /// Tokens generated per text, a multiple of every K.
    pub tokens: usize,
    /// Repetitions, of which the median counts.
    pub repetitions: usize,
}

/// The kind of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// A CALM, its autoencoder included.
    Calm,
    /// A backbone with a local decoder: not CALM's method.
    Local,
    /// A token model.
    Baseline,
}

impl CellKind {
    /// Its name in grids and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Local => "local",
            Self::Baseline => "baseline",
        }
    }

    /// What it is, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Calm => "CALM",
            Self::Local => "local decoder",
            Self::Baseline => "token model",
        }
    }

    /// Whether it predicts vectors.
    pub fn is_next_vector(self) -> bool {
        self != Self::Baseline
    }

    /// The stage that trains the model itself.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Calm | Self::Local => Stage::Lm,
            Self::Baseline => Stage::Baseline,
        }
    }
}

/// What is varied, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The kind of the cells that it is searched in.
    pub kind: CellKind,
    /// A word for it: letters, digits, `-` and `_`.
    pub name: String,
    /// The settings, each one or more overrides `key=value` with spaces between. The search begins
    /// with the first.
    pub values: Vec<String>,
}

/// One training: a cell with a seed, to be made or loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Name of the cell without its seed.
    pub model: String,
    /// The kind.
    pub kind: CellKind,
    /// The seed.
    pub seed: u64,
    /// The whole experiment.
    pub experiment: Experiment,
    /// The run that it is loaded from, where it is not trained here.
    pub loaded: Option<Loaded>,
}

impl Cell {
    /// Name of its directory.
    pub fn name(&self) -> String {
        format!("{}-seed{}", self.model, self.seed)
    }

    /// Its name, and the run where it is loaded from one.
    pub(crate) fn described(&self) -> String {
        match &self.loaded {
            Some(loaded) => format!("{} (run {})", self.name(), loaded.run),
            None => self.name(),
        }
    }

    /// Tokens per step, K; 1 for a token model.
    pub fn chunk_size(&self) -> usize {
        match self.kind {
            CellKind::Calm | CellKind::Local => self.experiment.model.chunk_size,
            CellKind::Baseline => 1,
        }
    }
}

/// The run that a cell was loaded from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Its directory, as the grid names it.
    pub run: String,
    /// When it began, by which another run in the same place is noticed.
    pub started: String,
    /// Revision of the source of the program that began it, where it is known.
    pub git_revision: Option<String>,
}

/// Whether two cells differ in their seeds alone, as far as the trained model is concerned.
pub(crate) fn alike(a: &Cell, b: &Cell) -> bool {
    let trained = |cell: &Cell| {
        let reference = &a.experiment;
        let mut e: Experiment = cell.experiment.clone();
        e.preset.clone_from(&reference.preset);
        e.seed = reference.seed;
        // Asked for in one, resolved in the other; both are compared with the text.
        e.model.vocab_size = reference.model.vocab_size;
        e.data.set_split(&reference.data.split());
        e.eval = reference.eval;
        e.progress_eval = reference.progress_eval;
        e.samples = reference.samples.clone();
        e.checkpoint = reference.checkpoint.clone();
        match cell.kind {
            CellKind::Calm | CellKind::Local => e.baseline = reference.baseline.clone(),
            CellKind::Baseline => {
                e.model = reference.model.clone();
                e.autoencoder = reference.autoencoder.clone();
                e.lm = reference.lm.clone();
            }
        }
        for stage in [&mut e.autoencoder, &mut e.lm, &mut e.baseline.training] {
            (stage.log_every, stage.eval_every, stage.checkpoint_every) = (1, 0, 1);
        }
        e
    };
    a.kind == b.kind && trained(a) == trained(b)
}
