//! The whole comparison: every cell, then what they say together.

use std::path::Path;

use calm_records::write_atomic;
use serde::{Deserialize, Serialize};

use crate::cell::{Judge, run_cell};
use crate::grid::{Grid, reference};
use crate::loaded;
use crate::record::{CellRecord, MadeWith, Technique, law_of};
use crate::report::{Comparison, write};
use crate::scaling::{Sample, fit};
use crate::setting::{Observer, Options, Text};
use crate::spec::{Cell, CellKind};
use crate::techniques::techniques;
use crate::{Error, Event, Result};

/// Laws drawn for the intervals of the scaling law.
const BOOTSTRAP: usize = 200;

/// Learning curves as points of a scaling law.
fn samples(cells: &[CellRecord]) -> Vec<Sample> {
    let kind = law_of(cells);
    let models = cells.iter().enumerate().filter(|(_, c)| c.kind == kind);
    models
        .flat_map(|(run, cell)| {
            cell.curve.iter().map(move |point| Sample {
                run,
                parameters: cell.parameters as f64,
                tokens: point.tokens as f64,
                chunk_size: cell.chunk_size as f64,
                brier_1: point.brier_1,
                brier_1_se: point.brier_1_se,
            })
        })
        .collect()
}

/// Makes the cells that are not there yet (of loaded ones only the record), measures the
/// techniques, and writes `cells.csv`, `comparison.json`, the charts and `compare.html` into the
/// directory. `None` where it was interrupted: called again, it goes on and repeats no finished
/// cell.
///
/// # Errors
/// A grid that can't be compared or is a search, a run that can't be loaded into it, a directory that
/// holds cells of another grid, and whatever goes wrong in training.
pub fn compare(
    grid: &Grid,
    options: &Options<'_>,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Comparison>> {
    if grid.is_search() {
        return Err(grid.bad("it has settings to search, and is no comparison".to_owned()));
    }
    let mut cells = grid.cells()?;
    fit_split(&mut cells, options, observe)?;
    share_autoencoders(&mut cells, options);
    let cell = reference(&cells).expect("a grid without cells was refused");
    let text = Text::prepare(cell, options, observe)?;
    // All of them before the first is trained.
    for cell in &cells {
        loaded::check(cell, &text, options)?;
    }
    let judge = Judge {
        grid,
        progress: grid.progress(cell),
        text: &text,
    };
    let of = cells.len();
    let mut records = Vec::with_capacity(of);
    for (index, cell) in cells.iter().enumerate() {
        observe(Event::CellStarted {
            name: &cell.name(),
            index,
            of,
        });
        let Some(record) = run_cell(cell, &judge, options, observe)? else {
            return Ok(None);
        };
        observe(Event::CellDone(&record));
        records.push(record);
    }
    let Some(techniques) = kept_techniques(grid, &cells, &records, &text, options, observe)? else {
        return Ok(None);
    };
    let comparison = conclude(grid.clone(), records, techniques);
    write(&comparison, &options.out)?;
    Ok(Some(comparison))
}

/// Gives the cells that are to be trained the split that serves the text, once for all of them.
pub(crate) fn fit_split(
    cells: &mut [Cell],
    options: &Options<'_>,
    observe: Observer<'_>,
) -> Result<()> {
    let Some(first) = cells.iter().find(|cell| cell.loaded.is_none()) else {
        return Ok(());
    };
    let (mut data, window) = (first.experiment.data.clone(), first.experiment.model.window);
    let mut forward = |event: calm_train::Event<'_>| observe(Event::Train(event));
    calm_train::data::fit_split(&mut data, window, options.cache, &mut forward)?;
    for cell in cells.iter_mut().filter(|cell| cell.loaded.is_none()) {
        cell.experiment.data.clone_from(&data);
    }
    Ok(())
}

/// Lets CALMs whose autoencoders would come out the same train one of them: the first cell trains
/// it, the others take it. Its FLOPs count in every one of them.
pub(crate) fn share_autoencoders(cells: &mut [Cell], options: &Options<'_>) {
    let trains = |cell: &Cell| {
        let own = cell.experiment.autoencoder_from.is_empty();
        own && cell.loaded.is_none() && cell.kind == CellKind::Calm
    };
    // All that an autoencoder's training depends on, and nothing else.
    let training = |cell: &Cell| {
        let e = &cell.experiment;
        let mut optim = e.optim.clone();
        optim.lr = optim.autoencoder_lr;
        let (model, window) = (e.model.autoencoder(), (e.model.window, e.model.init_std));
        let stage = e.autoencoder.clone();
        (
            e.seed,
            e.precision,
            e.data.clone(),
            model,
            window,
            stage,
            optim,
        )
    };
    for i in 1..cells.len() {
        let (before, rest) = cells.split_at_mut(i);
        let cell = &mut rest[0];
        let alike = |first: &&Cell| trains(first) && training(first) == training(cell);
        if let Some(first) = before.iter().find(alike).filter(|_| trains(cell)) {
            cell.experiment.autoencoder_from = options.directory(first).display().to_string();
        }
    }
}

/// Draws the conclusions of a finished comparison again, by the program as it is now, from the
/// records in `from`/comparison.json, and writes them into `out`. Nothing is trained or measured.
///
/// # Errors
/// A directory without a comparison, or one whose records can't be read.
pub fn analyse(from: &Path, out: &Path) -> Result<Comparison> {
    #[derive(Deserialize)]
    struct Kept {
        grid: Grid,
        techniques: Vec<Technique>,
        cells: Vec<CellRecord>,
    }
    let path = from.join("comparison.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut kept: Kept =
        serde_json::from_str(&text).map_err(|e| Error::io(&path)(std::io::Error::other(e)))?;
    for cell in &mut kept.cells {
        cell.scores.settle();
    }
    let comparison = conclude(kept.grid, kept.cells, kept.techniques);
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    write(&comparison, out)?;
    Ok(comparison)
}

fn conclude(grid: Grid, mut cells: Vec<CellRecord>, techniques: Vec<Technique>) -> Comparison {
    // What is drawn again from the file is to say the same.
    cells.iter_mut().for_each(CellRecord::round_windows);
    Comparison {
        scaling: fit(&samples(&cells), BOOTSTRAP, grid.protocol.seed),
        grid,
        techniques,
        cells,
    }
}

/// The techniques as measured before with these very cells, else measured now and kept; `None`
/// where that was interrupted.
fn kept_techniques(
    grid: &Grid,
    cells: &[Cell],
    records: &[CellRecord],
    text: &Text,
    options: &Options<'_>,
    observe: Observer<'_>,
) -> Result<Option<Vec<Technique>>> {
    #[derive(Serialize, Deserialize)]
    struct Kept {
        made_with: Vec<MadeWith>,
        techniques: Vec<Technique>,
    }
    let path = options.out.join("techniques.json");
    let made_with: Vec<MadeWith> = records.iter().map(|r| r.made_with.clone()).collect();
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(kept) = serde_json::from_str::<Kept>(&text)
        && kept.made_with.len() == made_with.len()
        && kept
            .made_with
            .iter()
            .zip(&made_with)
            .all(|(a, b)| a.fits(b))
    {
        return Ok(Some(kept.techniques));
    }
    observe(Event::MeasuringTechniques);
    let Some(techniques) = techniques(grid, cells, records, text, options)? else {
        return Ok(None);
    };
    let kept = Kept {
        made_with,
        techniques,
    };
    let text = serde_json::to_string_pretty(&kept).expect("numbers have a JSON form") + "\n";
    write_atomic(&path, text.as_bytes())?;
    Ok(Some(kept.techniques))
}
