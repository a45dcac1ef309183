//! The stages of a run: where each begins, from a seed or a checkpoint, and what the next is given.

use burn::module::Module;
use calm_autoencoder::ChunkAutoencoder;
use calm_lm::CalmModel;
use calm_nn::mix;
use calm_records::Stage;

use crate::Result;
use crate::event::Observer;
use crate::finish::Trained;
use crate::found::Found;
use crate::state::TrainState;
use crate::step_loop::{Run, Start, run_stage};
use crate::tasks::{AutoencoderTask, BaselineTask, LanguageModelTask, LocalTask};

/// The autoencoder, then, unless it is all that was asked for, the language model; `None` where
/// the run was interrupted.
pub(crate) fn train_calm(
    autoencoder_only: bool,
    found: &Found,
    run: &mut Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<Trained>> {
    let (experiment, device) = (run.experiment, run.device);
    let (model, seed) = (&experiment.model, experiment.seed);
    let (autoencoder, start) = match &found.lm {
        // A language model's checkpoint holds the autoencoder that it is trained on.
        Some((state, checkpoint)) => {
            let start = Start {
                model: checkpoint.load_trained_language_model(device)?,
                state: state.clone(),
                resumed: Some(checkpoint.directory().to_owned()),
            };
            (checkpoint.load_autoencoder(device)?, start)
        }
        None => {
            let Some((autoencoder, before)) = train_autoencoder(found, run, observe)? else {
                return Ok(None);
            };
            if autoencoder_only {
                return Ok(Some(Trained::Autoencoder(autoencoder, before)));
            }
            let start = Start {
                model: model.init_language_model(seed, device),
                state: TrainState {
                    earlier_tokens: before.tokens,
                    earlier_flops: before.flops,
                    ..TrainState::start(Stage::Lm, seed ^ 1, run.text.key(Stage::Lm))
                },
                resumed: None,
            };
            (autoencoder, start)
        }
    };
    let task = LanguageModelTask {
        model,
        autoencoder: &autoencoder,
        copies: (run.devices.all().skip(1))
            .map(|other| &other.device)
            .map(|other| (other.clone(), autoencoder.clone().to_device(other)))
            .collect(),
        judge: run.judge(),
    };
    let (config, lr) = (&experiment.lm, experiment.optim.lr);
    let Some((language_model, state)) = run_stage(&task, config, lr, start, run, observe)? else {
        return Ok(None);
    };
    let calm = CalmModel {
        autoencoder,
        language_model: language_model.without_auxiliary(),
    };
    Ok(Some(Trained::Calm(calm, state)))
}

/// The model with a local decoder, which needs no autoencoder; `None` where the run was interrupted.
pub(crate) fn train_local(
    found: &Found,
    run: &mut Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<Trained>> {
    let (experiment, device) = (run.experiment, run.device);
    let (model, seed) = (&experiment.model, experiment.seed);
    let start = match &found.lm {
        Some((state, checkpoint)) => Start {
            model: checkpoint.load_local(device)?,
            state: state.clone(),
            resumed: Some(checkpoint.directory().to_owned()),
        },
        None => Start {
            model: model.init_local(seed, device),
            state: TrainState::start(Stage::Lm, seed ^ 1, run.text.key(Stage::Lm)),
            resumed: None,
        },
    };
    let task = LocalTask {
        model,
        judge: run.judge(),
    };
    let (config, lr) = (&experiment.lm, experiment.optim.lr);
    let ended = run_stage(&task, config, lr, start, run, observe)?;
    Ok(ended.map(|(model, state)| Trained::Local(model, state)))
}

/// The autoencoder and the state at its end; `None` where the run was interrupted.
fn train_autoencoder(
    found: &Found,
    run: &mut Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<(ChunkAutoencoder, TrainState)>> {
    let (experiment, device) = (run.experiment, run.device);
    let (model, seed) = (&experiment.model, experiment.seed);
    let start = match &found.autoencoder {
        Some((state, checkpoint)) => Start {
            model: checkpoint.load_autoencoder(device)?,
            state: state.clone(),
            resumed: Some(checkpoint.directory().to_owned()),
        },
        None => Start {
            model: model.init(seed, device).autoencoder,
            state: TrainState::start(Stage::Autoencoder, seed, run.text.key(Stage::Autoencoder)),
            resumed: None,
        },
    };
    let task = AutoencoderTask {
        model,
        judge: run.judge(),
    };
    let (config, lr) = (&experiment.autoencoder, experiment.optim.autoencoder_lr);
    run_stage(&task, config, lr, start, run, observe)
}

/// The token baseline; `None` where the run was interrupted.
pub(crate) fn train_baseline(
    found: &Found,
    run: &mut Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<Trained>> {
    let (experiment, device) = (run.experiment, run.device);
    let config = experiment.token_model();
    let task = BaselineTask {
        config: &config,
        chunk_size: experiment.model.chunk_size,
        judge: run.judge(),
    };
    let start = match &found.baseline {
        Some((state, checkpoint)) => Start {
            model: checkpoint.load(device)?,
            state: state.clone(),
            resumed: Some(checkpoint.directory().to_owned()),
        },
        // The text in the order in which the language model reads it.
        None => Start {
            model: config.init(mix(experiment.seed, 3), device),
            state: TrainState::start(
                Stage::Baseline,
                experiment.seed ^ 1,
                run.text.key(Stage::Baseline),
            ),
            resumed: None,
        },
    };
    let stage = &experiment.baseline;
    let ended = run_stage(&task, &stage.training, stage.lr, start, run, observe)?;
    Ok(ended.map(|(model, state)| Trained::Baseline(model, state)))
}
