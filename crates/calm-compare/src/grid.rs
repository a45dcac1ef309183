//! The grid: which models are trained on the same text and how they are judged.

use std::collections::BTreeSet;
use std::path::Path;

use calm_baseline::MAX_N;
use calm_eval::EvalConfig;
use calm_train::{Experiment, preset};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Grids in the program, each a complete TOML file under `presets/compare/`.
pub const GRIDS: [(&str, &str); 4] = [
    ("debug", include_str!("../../../presets/compare/debug.toml")),
    ("nano", include_str!("../../../presets/compare/nano.toml")),
    (
        "nano-long",
        include_str!("../../../presets/compare/nano-long.toml"),
    ),
    (
        "scaling",
        include_str!("../../../presets/compare/scaling.toml"),
    ),
];

/// What is compared with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Name of the comparison.
    pub name: String,
    /// The preset (or complete .toml file) that every cell starts from.
    pub preset: String,
    /// Overrides for all cells, `key=value`.
    pub set: Vec<String>,
    /// The protocol of the scores.
    pub protocol: ProtocolConfig,
    /// How decoding is timed.
    pub speed: SpeedConfig,
    /// The models, in the order in which they are trained.
    #[serde(rename = "cell")]
    pub cells: Vec<CellConfig>,
}

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
    /// A token model.
    Baseline,
}

/// One model of the grid, trained once for every seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// Its kind.
    pub kind: CellKind,
    /// Overrides for this cell, after the grid's.
    pub set: Vec<String>,
    /// Seeds of weights, order of the text and draws.
    pub seeds: Vec<u64>,
}

/// One training: a cell with a seed.
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
}

impl Cell {
    /// Name of its directory.
    pub fn name(&self) -> String {
        format!("{}-seed{}", self.model, self.seed)
    }

    /// Tokens per step, K; 1 for a token model.
    pub fn chunk_size(&self) -> usize {
        match self.kind {
            CellKind::Calm => self.experiment.model.chunk_size,
            CellKind::Baseline => 1,
        }
    }
}

impl Grid {
    /// A grid by its name or from a .toml file.
    ///
    /// # Errors
    /// Unknown name, a file that can't be read or parsed.
    pub fn resolve(name: &str) -> Result<Self> {
        let (origin, text) = match GRIDS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (format!("grid {name}"), (*text).to_owned()),
            None if name.ends_with(".toml") => {
                let text = std::fs::read_to_string(name).map_err(Error::io(Path::new(name)))?;
                (name.to_owned(), text)
            }
            None => {
                return Err(Error::UnknownGrid {
                    given: name.to_owned(),
                    known: GRIDS.map(|(name, _)| name).join(", "),
                });
            }
        };
        toml::from_str(&text).map_err(|e| Error::BadGrid {
            origin,
            detail: e
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        })
    }

    /// The grid as TOML, which [`Grid::resolve`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings and numbers have a TOML form")
    }

    /// All trainings, in order.
    ///
    /// # Errors
    /// Names that are taken twice or can't be a directory, an experiment that is not valid, cells
    /// that would not see the same text, windows or positions.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        let bad = |detail: String| Error::BadGrid {
            origin: format!("grid {}", self.name),
            detail,
        };
        let mut cells = Vec::new();
        let mut names = BTreeSet::new();
        for config in &self.cells {
            let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if config.name.is_empty() || !config.name.chars().all(letters) {
                let name = &config.name;
                return Err(bad(format!(
                    "cell name '{name}': letters, digits, - and _ only"
                )));
            }
            for &seed in &config.seeds {
                let mut overrides = self.set.clone();
                overrides.extend(config.set.iter().cloned());
                overrides.push(format!("seed={seed}"));
                let mut experiment = preset::resolve(&self.preset, &overrides)?;
                // The comparison scores the models itself, all under one protocol.
                experiment.eval = self.protocol.eval(2);
                experiment.eval.windows = 2;
                // On the way all are scored on the same positions too, for the learning curves.
                experiment.progress_eval.every = self.protocol.every;
                experiment.samples.prompts.clear();
                let cell = Cell {
                    model: config.name.clone(),
                    kind: config.kind,
                    seed,
                    experiment,
                };
                if !names.insert(cell.name()) {
                    return Err(bad(format!("cell {} stands there twice", cell.name())));
                }
                cells.push(cell);
            }
        }
        let Some(first) = cells.first() else {
            return Err(bad("no cells".to_owned()));
        };
        let (data, window) = (&first.experiment.data, first.experiment.model.window);
        let vocab_size = first.experiment.model.vocab_size;
        for cell in &cells {
            let name = cell.name();
            let experiment = &cell.experiment;
            if experiment.data != *data || experiment.model.vocab_size != vocab_size {
                return Err(bad(format!(
                    "{name}: data and vocabulary must be those of {}",
                    first.name()
                )));
            }
            if experiment.model.window != window {
                return Err(bad(format!(
                    "{name}: a window of {} tokens where {} has {window}",
                    experiment.model.window,
                    first.name()
                )));
            }
            let k = cell.chunk_size();
            let speed = &self.speed;
            for (what, value) in [
                ("protocol.every", self.protocol.every),
                ("speed.prompt_tokens", speed.prompt_tokens),
                ("speed.tokens", speed.tokens),
            ] {
                if value == 0 || !value.is_multiple_of(k) {
                    return Err(bad(format!(
                        "{what} = {value} is no multiple of K = {k} of {name}"
                    )));
                }
            }
            if speed.tokens < 2 * k {
                return Err(bad(format!(
                    "speed.tokens = {} is one step of {name}; a rate needs two or more",
                    speed.tokens
                )));
            }
            if speed.prompt_tokens > window {
                return Err(bad(
                    "speed.prompt_tokens is longer than the window".to_owned()
                ));
            }
        }
        if self.protocol.windows < 2 {
            return Err(bad(
                "protocol.windows must be 2 or more: errors are over windows".to_owned(),
            ));
        }
        if self.protocol.every + MAX_N > window {
            return Err(bad(format!(
                "protocol.every = {} leaves no position with four tokens in a window of {window}",
                self.protocol.every
            )));
        }
        if self.protocol.draws < 2 || self.protocol.token_draws < 1 {
            return Err(bad(
                "protocol.draws must be 2 or more, token_draws 1 or more".to_owned(),
            ));
        }
        if self.speed.repetitions == 0 || self.speed.batches.contains(&0) {
            return Err(bad(
                "speed.repetitions and batches must be 1 or more".to_owned()
            ));
        }
        for cell in &cells {
            cell.experiment.validate()?;
        }
        Ok(cells)
    }
}
