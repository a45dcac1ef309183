//! The grid: which models are trained on the same text and how they are judged.

use std::collections::BTreeSet;
use std::path::Path;

use calm_eval::EvalConfig;
use calm_nn::MAX_N;
use calm_train::preset;
use serde::{Deserialize, Serialize};

use crate::loaded;
use crate::spec::{Axis, Cell, CellKind, ProtocolConfig, SpeedConfig, alike};
use crate::{Error, Result};

/// Grids in the program, each a complete TOML file under `presets/compare/`.
pub const GRIDS: [(&str, &str); 7] = [
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
    (
        "frontier",
        include_str!("../../../presets/compare/frontier.toml"),
    ),
    (
        "scaling-local",
        include_str!("../../../presets/compare/scaling-local.toml"),
    ),
    ("tune", include_str!("../../../presets/compare/tune.toml")),
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
    /// Settings to try in all cells of a kind ([`crate::search()`]); where there are any, the grid is a
    /// search and no comparison.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<Axis>,
    /// The models, in the order in which they are trained.
    #[serde(rename = "cell")]
    pub cells: Vec<CellConfig>,
}

/// One model of the grid, trained once for every seed, or loaded from a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// Its kind.
    pub kind: CellKind,
    /// Overrides for this cell, after the grid's.
    #[serde(default)]
    pub set: Vec<String>,
    /// Seeds of weights, order of the text and draws.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// A finished run to load instead of training one: its directory as `calm train` leaves it,
    /// seen from where the program runs. Experiment and seed are the run's own, so `set` and
    /// `seeds` stay away or empty. Its text, tokenizer and window must be those of the other
    /// cells, and its device and machine those of the comparison, or its seconds could not stand
    /// beside theirs; of the machine `run.json` knows threads, system and architecture. Nothing is
    /// written into it, and it must stay where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
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

    /// Whether it is a search of settings and no comparison of models.
    pub fn is_search(&self) -> bool {
        !self.search.is_empty()
    }

    /// The grid as TOML, which [`Grid::resolve`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings and numbers have a TOML form")
    }

    pub(crate) fn bad(&self, detail: String) -> Error {
        Error::BadGrid {
            origin: format!("grid {}", self.name),
            detail,
        }
    }

    /// All trainings, in order.
    ///
    /// # Errors
    /// Names that are taken twice or can't be a directory, an experiment that is not valid, a run
    /// that can't be loaded, cells that would not see the same text, windows or positions.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        let bad = |detail: String| self.bad(detail);
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
            let made = match &config.run {
                Some(run) => vec![self.loaded_cell(config, run)?],
                None => self.trained_cells(config)?,
            };
            for cell in made {
                if !names.insert(cell.name()) {
                    return Err(bad(format!("cell {} stands there twice", cell.name())));
                }
                cells.push(cell);
            }
        }
        let Some(first) = reference(&cells) else {
            return Err(bad("no cells".to_owned()));
        };
        let (data, window) = (&first.experiment.data, first.experiment.model.window);
        let vocab_size = first.experiment.model.vocab_size;
        for cell in &cells {
            let name = cell.described();
            let experiment = &cell.experiment;
            // A run's vocabulary is the resolved one, which the text decides: compared with it.
            let other_vocabulary =
                cell.loaded.is_none() && experiment.model.vocab_size != vocab_size;
            let mut its_data = experiment.data.clone();
            if cell.loaded.is_some() {
                // As resolved too.
                its_data.set_split(&data.split());
            }
            if its_data != *data || other_vocabulary {
                return Err(bad(format!(
                    "{name}: data and vocabulary must be those of {}",
                    first.described()
                )));
            }
            if experiment.model.window != window {
                return Err(bad(format!(
                    "{name}: a window of {} tokens where {} has {window}",
                    experiment.model.window,
                    first.described()
                )));
            }
            let (windows, others) = (
                experiment.progress_eval.windows,
                first.experiment.progress_eval.windows,
            );
            if cell.loaded.is_none() && windows != others {
                return Err(bad(format!(
                    "{name}: progress_eval.windows = {windows} where {} has {others}; learning \
                     curves are compared window by window",
                    first.described()
                )));
            }
            let seeds = cells.iter().find(|other| other.model == cell.model);
            if let Some(other) = seeds.filter(|other| !alike(other, cell)) {
                return Err(bad(format!(
                    "{name}: cells of one name differ in their seeds alone, and {} is another \
                     model; give it another name",
                    other.described()
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

    fn loaded_cell(&self, config: &CellConfig, run: &str) -> Result<Cell> {
        if !config.set.is_empty() || !config.seeds.is_empty() {
            return Err(self.bad(format!(
                "cell {}: set and seeds are those of the run {run}; leave both out",
                config.name
            )));
        }
        loaded::read(&config.name, config.kind, run)
    }

    fn trained_cells(&self, config: &CellConfig) -> Result<Vec<Cell>> {
        if config.seeds.is_empty() {
            return Err(self.bad(format!(
                "cell {}: no seeds; give some, or a run to load",
                config.name
            )));
        }
        let of_seed = |&seed: &u64| {
            let mut overrides = self.set.clone();
            overrides.extend(match config.kind {
                CellKind::Calm => Some("model.decoder=autoencoder".to_owned()),
                CellKind::Local => Some("model.decoder=local".to_owned()),
                CellKind::Baseline => None,
            });
            overrides.extend(config.set.iter().cloned());
            overrides.push(format!("seed={seed}"));
            let mut experiment = preset::resolve(&self.preset, &overrides)?;
            // The comparison scores the models itself, all under one protocol.
            experiment.eval = self.protocol.eval(2);
            experiment.eval.windows = 2;
            // On the way all are scored on the same positions too, for the learning curves.
            experiment.progress_eval.every = self.protocol.every;
            experiment.samples.prompts.clear();
            Ok(Cell {
                model: config.name.clone(),
                kind: config.kind,
                seed,
                experiment,
                loaded: None,
            })
        };
        config.seeds.iter().map(of_seed).collect()
    }

    /// How the points of the learning curves are scored.
    pub(crate) fn progress(&self, reference: &Cell) -> EvalConfig {
        EvalConfig {
            every: self.protocol.every,
            ..reference.experiment.progress_eval
        }
    }
}

/// The cell whose text and learning curve all others must match: the first that is trained, else
/// the first.
pub(crate) fn reference(cells: &[Cell]) -> Option<&Cell> {
    let trained = cells.iter().find(|cell| cell.loaded.is_none());
    trained.or(cells.first())
}
