//! What a run directory holds already.

use calm_data::Tokenizer;
use calm_lm::{BaselineCheckpoint, Checkpoint, CheckpointConfig, CheckpointOf, check_tokenizer};
use calm_records::{MetricRow, RunDir, Stage, truncate_after};

use crate::config::{Experiment, Stages};
use crate::event::{Event, Observer};
use crate::state::{TrainState, newest};
use crate::text::Text;
use crate::{Error, Result};

/// The newest valid checkpoints in a run directory.
pub(crate) struct Found {
    pub autoencoder: Option<(TrainState, Checkpoint)>,
    pub lm: Option<(TrainState, Checkpoint)>,
    pub baseline: Option<(TrainState, BaselineCheckpoint)>,
}

impl Found {
    pub(crate) fn look(
        directory: &RunDir,
        tokenizer: &Tokenizer,
        observe: Observer<'_>,
    ) -> Result<Self> {
        fn find<C: CheckpointConfig>(
            directory: &RunDir,
            stage: Stage,
            tokenizer: &Tokenizer,
            observe: Observer<'_>,
        ) -> Result<Option<(TrainState, CheckpointOf<C>)>> {
            let Some(newest) = newest(directory, stage)? else {
                return Ok(None);
            };
            let checkpoint: CheckpointOf<C> = newest.checkpoint;
            for error in &newest.passed_over {
                observe(Event::PassedOver {
                    error,
                    taken: checkpoint.directory(),
                });
            }
            let path = checkpoint.path("tokenizer.json");
            check_tokenizer(&path, tokenizer.fingerprint())?;
            let state = TrainState::of(&checkpoint)?;
            Ok(Some((state, checkpoint)))
        }
        Ok(Self {
            autoencoder: find(directory, Stage::Autoencoder, tokenizer, observe)?,
            lm: find(directory, Stage::Lm, tokenizer, observe)?,
            baseline: find(directory, Stage::Baseline, tokenizer, observe)?,
        })
    }

    /// Refuses what can't be gone on with.
    pub(crate) fn check(
        &self,
        stages: Stages,
        experiment: &Experiment,
        directory: &RunDir,
        text: &Text,
    ) -> Result<()> {
        let run = || directory.root.clone();
        let local = experiment.model.is_local();
        if local {
            experiment.check_local(stages)?;
        }
        if stages == Stages::Lm && !local && !self.autoencoder_complete(experiment) {
            return Err(Error::NoAutoencoder { run: run() });
        }
        if stages == Stages::Autoencoder && self.lm.is_some() {
            return Err(Error::HasLanguageModel { run: run() });
        }
        match self
            .states()
            .find(|state| state.text != text.key(state.stage))
        {
            None => Ok(()),
            Some(state) => Err(Error::TextChanged {
                run: run(),
                expected: state.text.clone(),
                got: text.key(state.stage).to_owned(),
            }),
        }
    }

    /// Whether the stages have no step left.
    pub(crate) fn is_trained(&self, stages: Stages, experiment: &Experiment) -> bool {
        let lm = self.lm.as_ref().map_or(0, |(state, _)| state.step);
        let baseline = self.baseline.as_ref().map_or(0, |(state, _)| state.step);
        match stages {
            Stages::Autoencoder => self.autoencoder_complete(experiment),
            Stages::All | Stages::Lm => lm >= experiment.lm.steps,
            Stages::Baseline => baseline >= experiment.baseline.training.steps,
        }
    }

    /// Whether steps of an autoencoder are left.
    pub(crate) fn autoencoder_left(&self, experiment: &Experiment) -> bool {
        !experiment.model.is_local() && !self.autoencoder_complete(experiment)
    }

    /// A language model is trained on a complete one only.
    fn autoencoder_complete(&self, experiment: &Experiment) -> bool {
        let steps = experiment.autoencoder.steps;
        let trained = self.autoencoder.as_ref();
        self.lm.is_some() || trained.is_some_and(|(state, _)| state.step >= steps)
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &TrainState> {
        let calm = [&self.autoencoder, &self.lm].into_iter().flatten();
        calm.map(|(state, _)| state)
            .chain(self.baseline.iter().map(|(state, _)| state))
    }
}

/// Cuts the records back to the checkpoints that the run goes on from.
pub(crate) fn cut_records(directory: &RunDir, found: &Found) -> Result<()> {
    let keep = |stage: Stage, step: u64| {
        let is_over = stage == Stage::Autoencoder && found.lm.is_some();
        let up_to = |state: &TrainState| state.stage == stage && step <= state.step;
        is_over || found.states().any(up_to)
    };
    truncate_after(&directory.metrics(), |row: &MetricRow| {
        keep(row.stage, row.step)
    })?;
    truncate_after(
        &directory.eval_history(),
        |row: &calm_records::EvalPoint| keep(row.stage, row.step),
    )?;
    Ok(())
}
