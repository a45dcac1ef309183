//! A trained model that a run goes on with on another text: fine-tuning.

use std::path::Path;

use burn::tensor::Device;
use calm_baseline::TokenModelConfig;
use calm_data::Tokenizer;
use calm_lm::{
    BaselineCheckpoint, Checkpoint, CheckpointConfig, CheckpointOf, CheckpointWriter, Kind,
    LanguageModel, checkpoint_kind,
};
use calm_nn::{Init, mix};
use calm_records::{RunDir, Stage};
use toml::{Table, Value};

use crate::config::{Experiment, Stages};
use crate::event::{Event, Observer};
use crate::preset::{flatten, value_at};
use crate::state::{
    Newest, STATE, TrainState, baseline_checkpoint, language_model_checkpoint, publish,
};
use crate::text::Text;
use crate::{Error, Result, data};

/// A checkpoint whose model is trained further: a CALM, one with a local decoder, or a token model.
#[allow(clippy::large_enum_variant)] // There is one of these in a program.
pub(crate) enum Initial {
    Calm(Checkpoint),
    TokenModel(BaselineCheckpoint),
}

/// Keys of `[model]` that say how a model is trained, not what it is.
const OF_TRAINING: [&str; 11] = [
    "window",
    "init_std",
    "zero_init_residual",
    "aux_weight",
    "objective.",
    "head.samples",
    "head.posterior_samples",
    "head.antithetic",
    "head.alpha",
    "head.flow_",
    "head.diffusion_",
];

impl Initial {
    /// Opens the model that `experiment.init_from` names; `None` where it names none.
    ///
    /// # Errors
    /// What is no checkpoint of a model, or not of the experiment's sizes.
    pub(crate) fn open(experiment: &Experiment, observe: Observer<'_>) -> Result<Option<Self>> {
        let from = &experiment.init_from;
        if from.is_empty() {
            return Ok(None);
        }
        let initial = Self::at(from, observe)?;
        let (has, wants) = match &initial {
            Self::Calm(checkpoint) => (table(checkpoint.config()), table(&experiment.model)),
            Self::TokenModel(checkpoint) => {
                let token_model = experiment.token_model();
                (table(checkpoint.config()), table(&token_model))
            }
        };
        let mut keys = Vec::new();
        flatten("", &has, &mut keys);
        for key in keys {
            let (value, wanted) = (value_at(&has, &key), value_at(&wants, &key));
            let of_training = OF_TRAINING.iter().any(|free| key.starts_with(free));
            if !of_training && value != wanted {
                let [value, wanted] = [value, wanted].map(|value| match value {
                    Some(value) => value.to_string(),
                    None => "missing".to_owned(),
                });
                let detail = format!("its model.{key} is {value}, the experiment's {wanted}");
                return Err(bad(from, detail));
            }
        }
        Ok(Some(initial))
    }

    /// The model in a checkpoint directory, or the newest of a run: its language model, or where it has
    /// none its token model.
    fn at(from: &str, observe: Observer<'_>) -> Result<Self> {
        if let Ok(run) = RunDir::open(from) {
            if run.checkpoints(Stage::Lm).is_dir() {
                let newest = language_model_checkpoint(&run)?;
                return Ok(Self::Calm(told(newest, observe)));
            }
            let newest = baseline_checkpoint(&run)?;
            return Ok(Self::TokenModel(told(newest, observe)));
        }
        let path = Path::new(from);
        match checkpoint_kind(path)? {
            Kind::Calm => Ok(Self::Calm(CheckpointOf::open(path)?)),
            Kind::TokenModel => Ok(Self::TokenModel(CheckpointOf::open(path)?)),
            Kind::Autoencoder => {
                let detail = "an autoencoder alone; --autoencoder trains a language model on one";
                Err(bad(from, detail.to_owned()))
            }
        }
    }

    /// Refuses stages that train something else.
    pub(crate) fn check_stages(&self, experiment: &Experiment, stages: Stages) -> Result<()> {
        let (fits, wanted) = match self {
            Self::Calm(_) => (stages == Stages::Lm, "lm"),
            Self::TokenModel(_) => (stages == Stages::Baseline, "baseline"),
        };
        if !fits {
            let detail = format!("this model is trained further with --stage {wanted}");
            return Err(bad(&experiment.init_from, detail));
        }
        if !experiment.autoencoder_from.is_empty() {
            let detail = "it has its autoencoder, which stays: leave autoencoder_from out";
            return Err(bad(&experiment.init_from, detail.to_owned()));
        }
        Ok(())
    }

    /// Its tokenizer, or for one without any the one that the experiment names.
    pub(crate) fn tokenizer(&self, experiment: &Experiment) -> Result<Tokenizer> {
        let (own, vocab_size) = match self {
            Self::Calm(c) => (c.tokenizer(), c.config().vocab_size),
            Self::TokenModel(c) => (c.tokenizer(), c.config().vocab_size),
        };
        let named = &experiment.data.tokenizer;
        if named.is_empty() {
            return match own {
                Ok(own) => Ok(own.clone()),
                Err(_) => {
                    let detail = "it was imported without a tokenizer; name one (--set \
                                  data.tokenizer=FILE)";
                    Err(bad(&experiment.init_from, detail.to_owned()))
                }
            };
        }
        let named = Tokenizer::load(named.as_ref())?.for_vocabulary(vocab_size)?;
        if own.is_ok_and(|own| own.fingerprint() != named.fingerprint()) {
            let detail = "it has a tokenizer of its own: leave data.tokenizer out";
            return Err(bad(&experiment.init_from, detail.to_owned()));
        }
        Ok(named)
    }

    /// Puts it into the run as the checkpoint that its stage begins from. The optimizer starts fresh.
    pub(crate) fn place(
        &self,
        experiment: &Experiment,
        run: &RunDir,
        tokenizer: &Tokenizer,
        text: &Text,
        device: &Device,
    ) -> Result<()> {
        let k = experiment.model.chunk_size;
        let lead_in = data::lead_in(text.store.train(), tokenizer.end_of_text(), k);
        let with_text = |writer: CheckpointWriter| {
            let writer = writer.with_text(experiment.data.split(), text.store.content());
            writer.with_lead_in(lead_in)
        };
        let (stage, writer) = match self {
            Self::Calm(checkpoint) => {
                let path = run.checkpoint(Stage::Lm, 0);
                let writer = CheckpointWriter::new(&path, &experiment.model, tokenizer)?;
                if experiment.model.is_local() {
                    writer.write_local_model(checkpoint.load_local(device)?)?;
                } else {
                    writer.write_autoencoder(checkpoint.load_autoencoder(device)?)?;
                    writer.write_language_model(language_model(checkpoint, experiment, device)?)?;
                }
                (Stage::Lm, with_text(writer))
            }
            Self::TokenModel(checkpoint) => {
                let path = run.checkpoint(Stage::Baseline, 0);
                let writer = CheckpointWriter::new(&path, &experiment.token_model(), tokenizer)?;
                writer.write_token_model(checkpoint.load(device)?)?;
                (Stage::Baseline, with_text(writer))
            }
        };
        let start = TrainState::start(stage, experiment.seed ^ 1, text.key(stage));
        writer.write_json(STATE, &start)?;
        writer.finish()?;
        publish(run, stage, None, 0, 1)
    }
}

/// The language model with the auxiliary heads that the experiment trains: its own, or fresh ones.
fn language_model(
    checkpoint: &Checkpoint,
    experiment: &Experiment,
    device: &Device,
) -> Result<LanguageModel> {
    let wanted = experiment.model.auxiliary();
    if wanted.is_some() && checkpoint.config().auxiliary() == wanted {
        return Ok(checkpoint.load_trained_language_model(device)?);
    }
    let mut model = checkpoint.load_language_model(device)?;
    let seed = mix(experiment.seed, 4);
    let std = experiment.model.init_std;
    model.auxiliary = wanted.map(|c| c.init(&mut Init::new(seed, device).with_std(std)));
    Ok(model)
}

fn bad(from: &str, detail: String) -> Error {
    Error::BadInitialModel {
        from: from.to_owned(),
        detail,
    }
}

/// Puts the model of the checkpoint that `from` names into a preset's table, before overrides.
pub(crate) fn into_table(from: &str, table: &mut Table) -> Result<()> {
    table.insert("init_from".to_owned(), Value::from(from));
    match Initial::at(from, &mut |_| ())? {
        Initial::Calm(checkpoint) => {
            // Whole, with what older checkpoints leave out.
            let model = self::table(checkpoint.config());
            table.insert("model".to_owned(), Value::Table(model));
        }
        Initial::TokenModel(checkpoint) => token_model_into(checkpoint.config(), table),
    }
    Ok(())
}

fn token_model_into(config: &TokenModelConfig, table: &mut Table) {
    let mut of = self::table(config);
    let (vocab_size, window) = (of.remove("vocab_size"), of.remove("window"));
    if let Some(Value::Table(model)) = table.get_mut("model") {
        model.extend(
            [("vocab_size", vocab_size), ("window", window)]
                .map(|(key, value)| (key.to_owned(), value.expect("every token model has it"))),
        );
    }
    if let Some(Value::Table(baseline)) = table.get_mut("baseline") {
        baseline.extend(of);
    }
}

fn table(config: &impl serde::Serialize) -> Table {
    Table::try_from(config).expect("sizes have a TOML form")
}

/// The checkpoint, after an event for each that should have come before it.
fn told<C>(newest: Newest<C>, observe: Observer<'_>) -> CheckpointOf<C>
where
    C: CheckpointConfig,
{
    for error in &newest.passed_over {
        let taken = newest.checkpoint.directory();
        observe(Event::PassedOver { error, taken });
    }
    newest.checkpoint
}
