//! The search for settings in every cell of a grid: one axis after the other, judged on validation
//! text.
//!
//! A comparison in which one side's learning rate was looked for and the other's guessed says little;
//! so every cell gets the same search. It goes by coordinates: all values of the first axis at the
//! first values of the others, then all values of the second at the best of the first, and so on,
//! which costs a sum of trainings where the whole product would cost their product.

use calm_records::{EvalPoint, read_jsonl, write_atomic};
use calm_train::preset;
use serde::{Deserialize, Serialize};

use crate::cell::train;
use crate::compare::{fit_split, share_autoencoders};
use crate::grid::{CellConfig, Grid};
use crate::setting::{Observer, Options};
use crate::spec::{Axis, Cell, CellKind};
use crate::{Error, Event, Result};

/// One setting that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which value of each axis, from 0.
    pub values: Vec<usize>,
    /// A result for every seed; `None` where the loss stopped being a number.
    pub results: Vec<Option<Judged>>,
}

/// What the validation text says of one training's end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Brier-1.
    pub brier_1: f64,
    /// Its standard error over windows.
    pub brier_1_se: f64,
    /// Nats a token, of a model with a likelihood.
    pub cross_entropy: Option<f64>,
}

/// The search of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// The cell's name.
    pub name: String,
    /// Its kind.
    pub kind: CellKind,
    /// Tokens per step.
    pub chunk_size: usize,
    /// What was varied.
    pub axes: Vec<Axis>,
    /// What was tried, in that order.
    pub trials: Vec<Trial>,
    /// The best of them.
    pub best: usize,
}

/// A finished search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// What was searched.
    pub grid: Grid,
    /// Cell by cell.
    pub families: Vec<Family>,
}

impl Trial {
    /// What is to be small: mean cross-entropy over the seeds where the model has a likelihood, else
    /// mean -Brier-1; infinite where a training failed.
    fn loss(&self) -> f64 {
        let of_one = |result: &Option<Judged>| match result {
            None => f64::INFINITY,
            Some(judged) => judged.cross_entropy.unwrap_or(-judged.brier_1),
        };
        self.results.iter().map(of_one).sum::<f64>() / self.results.len() as f64
    }
}

impl Family {
    /// Axes of three or more values whose best one stands at an end, numbers in ascending order:
    /// there the range was too narrow to say that it is the best.
    pub fn open_ends(&self) -> Vec<&str> {
        let number = |value: &String| value.split(' ').next()?.rsplit('=').next()?.parse().ok();
        let open = |&(axis, of): &(usize, &Axis)| {
            let numbers: Option<Vec<f64>> = of.values.iter().map(number).collect();
            numbers.filter(|n| n.len() > 2).is_some_and(|numbers| {
                let best = numbers[self.trials[self.best].values[axis]];
                !(numbers.iter().any(|n| *n < best) && numbers.iter().any(|n| *n > best))
            })
        };
        let axes = self.axes.iter().enumerate().filter(open);
        axes.map(|(_, axis)| axis.name.as_str()).collect()
    }
}

/// Coordinate search over axes with `lengths` values, which asks `of` for no setting twice. Returns
/// the trials in the order in which they were asked for, and which of them is best; `None` where
/// `of` gave none.
fn by_coordinates(
    lengths: &[usize],
    mut of: impl FnMut(&[usize]) -> Result<Option<Trial>>,
) -> Result<Option<(Vec<Trial>, usize)>> {
    let (mut tried, mut best) = (Vec::<Trial>::new(), 0);
    let mut chosen = vec![0; lengths.len()];
    // The start, also where there are no axes.
    let axes = std::iter::once((0, 1)).chain(lengths.iter().copied().enumerate());
    for (axis, length) in axes {
        for value in 0..length {
            let mut values = chosen.clone();
            if let Some(chosen) = values.get_mut(axis) {
                *chosen = value;
            }
            if tried.iter().any(|trial| trial.values == values) {
                continue;
            }
            let Some(trial) = of(&values)? else {
                return Ok(None);
            };
            tried.push(trial);
            // The earlier one where two are level.
            if tried[tried.len() - 1].loss() < tried[best].loss() {
                best = tried.len() - 1;
            }
        }
        chosen.clone_from(&tried[best].values);
    }
    Ok(Some((tried, best)))
}

/// Searches the settings of every cell of the grid, and writes `search.json` into the directory.
/// `None` where it was interrupted: called again, it goes on and repeats no finished training.
///
/// # Errors
/// A grid whose trials can't be compared with each other, a directory that holds trainings of
/// another grid, and whatever goes wrong in training; but a loss that stops being a number is a
/// result.
pub fn search(grid: &Grid, options: &Options<'_>, observe: Observer<'_>) -> Result<Option<Search>> {
    let mut all = check(grid)?;
    // The split that serves the text, once for all trials.
    fit_split(&mut all, options, observe)?;
    let mut families = Vec::new();
    // Of all families: autoencoders are shared between them.
    let mut known: Vec<Cell> = Vec::new();
    for (index, config) in grid.cells.iter().enumerate() {
        let axes = axes(grid, config.kind);
        let lengths: Vec<usize> = axes.iter().map(|axis| axis.values.len()).collect();
        let trial = |values: &[usize]| -> Result<Option<Trial>> {
            let name = trial_name(config, &axes, values);
            observe(Event::CellStarted {
                name: &name,
                index,
                of: grid.cells.len(),
            });
            let single = Grid {
                cells: vec![trial_config(config, &axes, values)],
                ..grid.clone()
            };
            let mut results = Vec::new();
            for mut cell in single.cells()? {
                cell.experiment.data.clone_from(&all[0].experiment.data);
                judge_at_the_end(&mut cell);
                known.push(cell);
                share_autoencoders(&mut known, options);
                let cell = known.last().expect("just pushed");
                match judged(cell, options, observe)? {
                    None => return Ok(None),
                    Some(result) => results.push(result),
                }
            }
            let values = values.to_vec();
            Ok(Some(Trial { values, results }))
        };
        let Some((tried, best)) = by_coordinates(&lengths, trial)? else {
            return Ok(None);
        };
        families.push(Family {
            name: config.name.clone(),
            kind: config.kind,
            chunk_size: known.last().map_or(1, Cell::chunk_size),
            axes,
            trials: tried,
            best,
        });
    }
    let search = Search {
        grid: grid.clone(),
        families,
    };
    let text = serde_json::to_string_pretty(&search).expect("numbers have a JSON form") + "\n";
    write_atomic(&options.out.join("search.json"), text.as_bytes())?;
    Ok(Some(search))
}

/// Every value of every axis, one after the other: valid experiments on the same text, or an error
/// before the first training.
fn check(grid: &Grid) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for axis in &grid.search {
        if axis.values.is_empty() {
            return Err(grid.bad(format!("axis {} has no values", axis.name)));
        }
    }
    for config in &grid.cells {
        if config.run.is_some() {
            let name = &config.name;
            return Err(grid.bad(format!("cell {name}: a finished run can't be searched")));
        }
        let axes = axes(grid, config.kind);
        let first = vec![0; axes.len()];
        cells.push(trial_config(config, &axes, &first));
        for (axis, of) in axes.iter().enumerate() {
            cells.extend((1..of.values.len()).map(|value| {
                let mut values = first.clone();
                values[axis] = value;
                trial_config(config, &axes, &values)
            }));
        }
    }
    let all = Grid {
        cells,
        search: Vec::new(),
        ..grid.clone()
    };
    all.cells()
}

/// What is varied in cells of a kind.
fn axes(grid: &Grid, kind: CellKind) -> Vec<Axis> {
    let axes = grid.search.iter().filter(|axis| axis.kind == kind);
    axes.cloned().collect()
}

/// Name of a setting of a cell, and of the directory of its training: `calm-k4-lr1-init0`.
fn trial_name(config: &CellConfig, axes: &[Axis], values: &[usize]) -> String {
    let axes = axes.iter().zip(values);
    let parts = axes.map(|(axis, value)| format!("-{}{value}", axis.name));
    config.name.clone() + &parts.collect::<String>()
}

fn trial_config(config: &CellConfig, axes: &[Axis], values: &[usize]) -> CellConfig {
    let mut set = config.set.clone();
    for (axis, &value) in axes.iter().zip(values) {
        set.extend(axis.values[value].split_whitespace().map(str::to_owned));
    }
    CellConfig {
        name: trial_name(config, axes, values),
        set,
        ..config.clone()
    }
}

/// One evaluation, after the last step.
fn judge_at_the_end(cell: &mut Cell) {
    let experiment = &mut cell.experiment;
    experiment.autoencoder.eval_every = 0;
    for stage in [&mut experiment.lm, &mut experiment.baseline.training] {
        stage.eval_every = stage.steps;
    }
}

/// Trains a cell, unless it is, and reads its last evaluation. `None` where it was interrupted,
/// `Some(None)` where it failed.
fn judged(
    cell: &Cell,
    options: &Options<'_>,
    observe: Observer<'_>,
) -> Result<Option<Option<Judged>>> {
    let directory = options.directory(cell);
    // Which experiment failed: the same place may belong to another one now.
    let failed = directory.join("not-finite.toml");
    let experiment = preset::to_toml(&cell.experiment)?;
    if std::fs::read_to_string(&failed).is_ok_and(|text| text == experiment) {
        return Ok(Some(None));
    }
    match train(cell, &directory, options, observe) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(Error::Train { source, .. })
            if matches!(*source, calm_train::Error::NotFinite { .. }) =>
        {
            write_atomic(&failed, experiment.as_bytes())?;
            return Ok(Some(None));
        }
        Err(error) => return Err(error),
    }
    let history = options.run(cell)?.eval_history();
    let points: Vec<EvalPoint> = read_jsonl(&history)?;
    let last = points
        .iter()
        .rev()
        .find(|point| point.stage == cell.kind.stage());
    let judged = last.and_then(judged_at).ok_or_else(|| {
        Error::io(&history)(std::io::Error::other("no evaluation of the last step"))
    });
    judged.map(|judged| Some(Some(judged)))
}

fn judged_at(point: &EvalPoint) -> Option<Judged> {
    Some(Judged {
        brier_1: point.brier?[0],
        brier_1_se: point.brier_se?[0],
        cross_entropy: point.cross_entropy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(values: &[usize], loss: f64) -> Trial {
        let judged = Judged {
            brier_1: 0.0,
            brier_1_se: 0.0,
            cross_entropy: Some(loss),
        };
        Trial {
            values: values.to_vec(),
            results: vec![loss.is_finite().then_some(judged)],
        }
    }

    #[test]
    fn coordinates_are_searched_one_after_the_other_and_nothing_twice() {
        // Smallest at (2, 1, 0).
        let target = [2_i64, 1, 0];
        let mut asked = Vec::new();
        let found = by_coordinates(&[3, 2, 2], |values| {
            asked.push(values.to_vec());
            let distance = |(&v, t): (&usize, i64)| (v as i64 - t).abs() as f64;
            let loss = values.iter().zip(target).map(distance).sum();
            Ok(Some(trial(values, loss)))
        });
        let (tried, best) = found.unwrap().unwrap();
        assert_eq!(tried[best].values, [2, 1, 0]);
        // 1 + 2 + 1 + 1 of the 12 settings.
        assert_eq!(asked.len(), 5);
        let mut distinct = asked.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), asked.len());
        // Without axes there is the start.
        let (tried, best) = by_coordinates(&[], |v| Ok(Some(trial(v, 1.0))))
            .unwrap()
            .unwrap();
        assert_eq!((tried.len(), best), (1, 0));
    }

    #[test]
    fn a_failed_training_is_never_the_best_and_an_interrupted_search_has_no_end() {
        let losses = [f64::INFINITY, 2.0, f64::INFINITY];
        let found = by_coordinates(&[3], |v| Ok(Some(trial(v, losses[v[0]]))));
        assert_eq!(found.unwrap().unwrap().1, 1);
        let stopped = by_coordinates(&[3], |v| Ok((v[0] < 2).then(|| trial(v, 0.0))));
        assert!(stopped.unwrap().is_none());
    }

    #[test]
    fn a_best_value_at_the_end_of_its_range_is_told() {
        let family = |best: usize| Family {
            name: "a".to_owned(),
            kind: CellKind::Calm,
            chunk_size: 2,
            axes: vec![
                Axis {
                    kind: CellKind::Calm,
                    name: "lr".to_owned(),
                    values: ["1e-3", "5e-4", "2e-3"]
                        .map(|v| format!("optim.lr={v}"))
                        .into(),
                },
                Axis {
                    kind: CellKind::Calm,
                    name: "tied".to_owned(),
                    values: ["false", "true"]
                        .map(|v| format!("baseline.tied={v}"))
                        .into(),
                },
            ],
            trials: (0..3)
                .map(|value| Trial {
                    values: vec![value, 0],
                    results: vec![None],
                })
                .collect(),
            best,
        };
        assert!(family(0).open_ends().is_empty());
        assert_eq!(family(1).open_ends(), ["lr"]);
        assert_eq!(family(2).open_ends(), ["lr"]);
    }
}
