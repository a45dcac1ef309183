//! An autoencoder taken from another run instead of trained.

use std::path::Path;

use calm_data::{Cursor, Tokenizer};
use calm_lm::{Checkpoint, CheckpointOf, CheckpointWriter, ModelConfig};
use calm_records::{RunDir, Stage};

use burn::tensor::Device;

use crate::config::Experiment;
use crate::state::{Newest, STATE, TrainState, newest, publish};
use crate::text::Text;
use crate::{Error, Result, data, preset};

/// A trained autoencoder and the state at the end of its training.
pub(crate) struct Pretrained {
    checkpoint: Checkpoint,
    state: TrainState,
}

impl Pretrained {
    /// Opens the autoencoder that `experiment.autoencoder_from` names: a run, or a checkpoint of an
    /// autoencoder stage. `None` where it names none.
    ///
    /// # Errors
    /// What is neither, is not finished, or does not fit the experiment.
    pub(crate) fn open(experiment: &Experiment) -> Result<Option<Self>> {
        let from = &experiment.autoencoder_from;
        if from.is_empty() {
            return Ok(None);
        }
        let bad = |detail: String| Error::BadAutoencoder {
            from: from.clone(),
            detail,
        };
        let checkpoint = match RunDir::open(from) {
            Ok(run) => {
                let found: Option<Newest<ModelConfig>> = newest(&run, Stage::Autoencoder)?;
                let found = found.ok_or_else(|| bad("the run has no autoencoder yet".into()))?;
                let steps = preset::load(&run.config())?.autoencoder.steps;
                let done = TrainState::of(&found.checkpoint)?.step;
                if done < steps {
                    let damage = found.passed_over.first();
                    let damage = damage.map_or(String::new(), |e| format!("; {e}"));
                    let detail = format!("it is not finished ({done} of {steps} steps{damage})");
                    return Err(bad(detail));
                }
                found.checkpoint
            }
            Err(_) => CheckpointOf::open(Path::new(from))?,
        };
        let state = TrainState::of(&checkpoint)?;
        if state.stage != Stage::Autoencoder {
            let detail = "a checkpoint of the language model; give its run, or one below \
                          checkpoints/autoencoder";
            return Err(bad(detail.into()));
        }
        // Sizes and regularisation; the vocabulary is the tokenizer's, which is taken along.
        let config = |model: &ModelConfig| {
            let mut sizes = model.autoencoder();
            sizes.vocab_size = 0;
            serde_json::to_value(sizes).expect("numbers have a JSON form")
        };
        let (has, wants) = (config(checkpoint.config()), config(&experiment.model));
        for (key, value) in has.as_object().into_iter().flatten() {
            if *value != wants[key] {
                let detail = format!("its {key} is {value}, the experiment's {}", wants[key]);
                return Err(bad(detail));
            }
        }
        Ok(Some(Self { checkpoint, state }))
    }

    /// The tokenizer that it was trained with.
    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(self.checkpoint.tokenizer()?)
    }

    /// Refuses text of which it may have seen the parts that are held out here.
    pub(crate) fn check_text(&self, experiment: &Experiment, text: &Text) -> Result<()> {
        if self.checkpoint.text() == Some(text.content(Stage::Autoencoder)) {
            return Ok(());
        }
        Err(Error::BadAutoencoder {
            from: experiment.autoencoder_from.clone(),
            detail:
                "it was trained on another text, tokenizer or split, and may have seen what is \
                     held out here; take one of the same [data]"
                    .to_owned(),
        })
    }

    /// Puts it into the run as its own finished stage: the tokens and FLOPs of its training count
    /// there as they do in the run that it comes from.
    pub(crate) fn place(
        &self,
        experiment: &mut Experiment,
        run: &RunDir,
        text: &Text,
        device: &Device,
    ) -> Result<()> {
        experiment.autoencoder.steps = self.state.step;
        let (step, k) = (self.state.step, experiment.model.chunk_size);
        let path = run.checkpoint(Stage::Autoencoder, step);
        let end_of_text = self.tokenizer()?.end_of_text();
        let writer = CheckpointWriter::new(&path, &experiment.model, self.tokenizer()?)?
            .with_text(
                experiment.data.split(),
                text.content(Stage::Autoencoder).to_owned(),
            )
            .with_lead_in(data::lead_in(text.store.train(), end_of_text, k));
        writer.write_autoencoder(self.checkpoint.load_autoencoder(device)?)?;
        let state = TrainState {
            text: text.key(Stage::Autoencoder).to_owned(),
            cursor: Cursor::new(experiment.seed),
            // Spent elsewhere.
            wall_seconds: 0.0,
            peak_rss_bytes: None,
            ..self.state.clone()
        };
        writer.write_json(STATE, &state)?;
        writer.finish()?;
        publish(run, Stage::Autoencoder, None, step, 1)
    }
}
