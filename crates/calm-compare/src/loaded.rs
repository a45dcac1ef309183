//! Cells that are loaded: finished runs, read and never written.

use std::path::Path;

use calm_records::{Host, RunDir, RunInfo, Summary};
use calm_train::{TrainState, baseline_checkpoint, language_model_checkpoint, preset};

use crate::record::same_machine;
use crate::setting::{Options, Text};
use crate::spec::{Cell, CellKind, Loaded};
use crate::{Error, Result};

/// The cell called `model` from the finished run in `run`.
///
/// # Errors
/// [`Error::BadRun`] for what is no run, is not finished, or lacks the model that `kind` needs.
pub(crate) fn read(model: &str, kind: CellKind, run: &str) -> Result<Cell> {
    let bad = |detail: String| bad_run(model, run, detail);
    let unread = |e: &dyn std::fmt::Display| bad(format!("can't be read: {e}"));
    let directory = RunDir::open(run).map_err(|_| {
        bad(
            "is none: there is no config.toml in it; give a directory that `calm train` made"
                .into(),
        )
    })?;
    let experiment = preset::load(&directory.config()).map_err(|e| unread(&e))?;
    if !directory.summary().is_file() {
        return Err(bad(format!("is not finished; {}", go_on(kind, run))));
    }
    let summary = Summary::load(&directory.summary()).map_err(|e| unread(&e))?;
    let local = experiment.model.is_local();
    let scored = match kind {
        CellKind::Calm => summary.calm.is_some() && !local,
        CellKind::Local => summary.calm.is_some() && local,
        CellKind::Baseline => summary.baseline.is_some(),
    };
    if !scored {
        return Err(bad(format!(
            "holds no finished {}, which kind = \"{}\" needs; train it there, or change the kind",
            kind.words(),
            kind.name(),
        )));
    }
    let info = RunInfo::load(&directory.run()).map_err(|e| unread(&e))?;
    Ok(Cell {
        model: model.to_owned(),
        kind,
        seed: experiment.seed,
        experiment,
        loaded: Some(Loaded {
            run: run.to_owned(),
            started: info.started,
            git_revision: info.git_revision,
        }),
    })
}

/// Refuses a loaded cell that can't stand beside the others: other text or vocabulary, another
/// device or machine, training that does not fit its own configuration.
///
/// # Errors
/// [`Error::BadRun`], and those of reading the run.
pub(crate) fn check(cell: &Cell, text: &Text, options: &Options<'_>) -> Result<()> {
    let Some(Loaded { run, .. }) = &cell.loaded else {
        return Ok(());
    };
    let bad = |detail: String| bad_run(&cell.name(), run, detail);
    if holds(Path::new(run), &options.out) {
        let out = options.out.display();
        return Err(bad(format!(
            "is only read, but {out} lies in it; give another --out"
        )));
    }
    let directory = RunDir::open(run)?;
    let info = RunInfo::load(&directory.run())?;
    let here = &options.info.host;
    if info.device != options.device_name || !same_machine(&info.host, here) {
        return Err(bad(format!(
            "was trained on {} where this comparison runs on {}; seconds of different machines \
             can't be compared: train the cell here",
            place(&info.device, &info.host),
            place(options.device_name, here),
        )));
    }
    let resolved = cell.experiment.model.vocab_size;
    if resolved != text.store.vocab_size() {
        return Err(bad(format!(
            "has a vocabulary of {resolved} tokens where the grid's text gives {}; both must \
             have the same tokenizer",
            text.store.vocab_size()
        )));
    }
    let (experiment, window) = (&cell.experiment, cell.experiment.model.window);
    let (state, asked) = match cell.kind {
        CellKind::Calm | CellKind::Local => {
            let before = match cell.kind {
                CellKind::Calm => experiment.autoencoder.total_tokens(window),
                _ => 0,
            };
            let asked = [before, experiment.lm.total_tokens(window)];
            let checkpoint = language_model_checkpoint(&directory);
            (
                checkpoint.and_then(|c| TrainState::of(&c.checkpoint)),
                asked,
            )
        }
        CellKind::Baseline => {
            let asked = [0, experiment.baseline.training.total_tokens(window)];
            let checkpoint = baseline_checkpoint(&directory);
            (
                checkpoint.and_then(|c| TrainState::of(&c.checkpoint)),
                asked,
            )
        }
    };
    let state = state.map_err(|e| bad(format!("can't be read: {e}")))?;
    if [state.earlier_tokens, state.tokens] != asked {
        return Err(bad(format!(
            "was trained on {} tokens where its config.toml asks for {}; {}",
            state.earlier_tokens + state.tokens,
            asked[0] + asked[1],
            go_on(cell.kind, run),
        )));
    }
    if state.text != text.store.key() {
        return Err(bad(format!(
            "was trained on another text or tokenizer ({:.12}.. where the grid's is {:.12}..); \
             load runs of the same corpus, unchanged since",
            state.text,
            text.store.key()
        )));
    }
    Ok(())
}

fn bad_run(cell: &str, run: &str, detail: String) -> Error {
    Error::BadRun {
        cell: cell.to_owned(),
        run: run.to_owned(),
        detail,
    }
}

fn go_on(kind: CellKind, run: &str) -> String {
    let stage = match kind {
        CellKind::Calm | CellKind::Local => "",
        CellKind::Baseline => " --stage baseline",
    };
    format!("go on with it by `cargo xtask train --resume{stage} --out {run}`")
}

fn place(device: &str, host: &Host) -> String {
    let Host { cpus, os, arch, .. } = host;
    format!("{device} ({cpus} threads, {os} {arch})")
}

/// Whether `path`, which need not be there yet, is `directory` or lies in it.
fn holds(directory: &Path, path: &Path) -> bool {
    let (Ok(directory), Ok(path)) = (directory.canonicalize(), std::path::absolute(path)) else {
        return false;
    };
    path.ancestors()
        .any(|ancestor| ancestor.canonicalize().is_ok_and(|a| a == directory))
}
