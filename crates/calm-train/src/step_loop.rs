//! The step loop, the same for every stage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use calm_data::Tokenizer;
use calm_eval::EvalConfig;
use calm_lm::CheckpointWriter;
use calm_nn::{Draws, mix};
use calm_records::{EvalPoint, EventWriter, JsonlWriter, MetricRow, RunDir, Stage};

use crate::config::{Experiment, StageConfig};
use crate::event::{Event, Observer};
use crate::optimizer::{adamw, clip_to, norm_of};
use crate::parallel::{self, Devices, Method, Part, Summed, mean};
use crate::state::{OPTIM, STATE, TrainState, publish};
use crate::text::Text;
use crate::{Error, Result, data, machine};

/// A loss and what is logged beside it.
pub(crate) struct StepLoss {
    pub total: Tensor<1>,
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// What a stage trains and how it is judged.
pub(crate) trait StageTask {
    type Model: Module + 'static;

    fn stage(&self) -> Stage;

    /// Training FLOPs per token, by the counting rule.
    fn flops_per_token(&self) -> f64;

    /// # Shapes
    /// - tokens: `[batch, steps, K]`
    fn loss(&self, model: &Self::Model, tokens: Tensor<3, Int>, draws: &mut dyn Draws) -> StepLoss;

    /// Evaluates the model without autodiff.
    fn evaluate(&self, model: &Self::Model, point: EvalPoint) -> Result<EvalPoint>;

    /// A checkpoint at `path` with configuration and weights, open for what else belongs in it.
    fn checkpoint(
        &self,
        model: &Self::Model,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<CheckpointWriter>;
}

/// What an evaluation on the way needs.
pub(crate) struct Judge<'a> {
    /// The text to make choices on.
    pub validation: &'a [u32],
    pub unigram: &'a [u64],
    pub config: &'a EvalConfig,
    pub device: &'a Device,
}

/// What every stage of a run shares.
pub(crate) struct Run<'a> {
    pub experiment: &'a Experiment,
    pub directory: &'a RunDir,
    pub tokenizer: &'a Tokenizer,
    pub text: &'a Text,
    /// How often each token occurs in the training text.
    pub unigram: &'a [u64],
    /// The first of `devices`.
    pub device: &'a Device,
    pub devices: Devices<'a>,
    pub peak_flops: Option<f64>,
    pub metrics: JsonlWriter<MetricRow>,
    pub history: JsonlWriter<EvalPoint>,
    pub interrupt: &'a AtomicBool,
    pub started: Instant,
    /// Wall-clock seconds of earlier sessions.
    pub earlier_seconds: f64,
}

impl<'a> Run<'a> {
    /// What an evaluation on the way needs.
    pub(crate) fn judge(&self) -> Judge<'a> {
        Judge {
            validation: self.text.store.validation(),
            unigram: self.unigram,
            config: &self.experiment.progress_eval,
            device: self.device,
        }
    }

    /// What is read in front of a prompt.
    pub(crate) fn lead_in(&self) -> Vec<u32> {
        let end_of_text = self.tokenizer.end_of_text();
        let k = self.experiment.model.chunk_size;
        data::lead_in(self.text.store.train(), end_of_text, k)
    }

    pub(crate) fn wall_seconds(&self) -> f64 {
        self.earlier_seconds + self.started.elapsed().as_secs_f64()
    }
}

/// Where a stage begins.
pub(crate) struct Start<M> {
    /// Without autodiff.
    pub model: M,
    pub state: TrainState,
    /// The checkpoint that model and state come from.
    pub resumed: Option<PathBuf>,
}

/// Trains to the stage's last step and returns the model without autodiff; `None` where the run
/// was interrupted, after saving. A stage that is complete already is returned as it is.
pub(crate) fn run_stage<T: StageTask>(
    task: &T,
    config: &StageConfig,
    peak_lr: f64,
    start: Start<T::Model>,
    run: &mut Run<'_>,
    observe: Observer<'_>,
) -> Result<Option<(T::Model, TrainState)>> {
    let Start {
        model,
        mut state,
        resumed,
    } = start;
    let stage = task.stage();
    if state.step >= config.steps {
        return Ok(Some((model, state)));
    }
    let experiment = run.experiment;
    let mut model = model.train();
    let (window, k) = (experiment.model.window, experiment.model.chunk_size);
    let method = Method {
        precision: experiment.precision.of_products(),
        checkpointing: experiment.gradient_checkpointing,
    };
    let stage_seed = mix(experiment.seed, stage as u64 + 1);

    let mut optimizer = adamw(&experiment.optim, &model);
    // A model from elsewhere, which no step of this run has changed, has none.
    if let Some(checkpoint) = resumed.as_ref().filter(|_| state.step > 0) {
        let path = checkpoint.join(OPTIM);
        optimizer = optimizer
            .load(&path)
            .map_err(|e| calm_lm::Error::DamagedCheckpoint {
                path: path.clone(),
                detail: e.to_string(),
            })?;
    }
    let mut text = (run.text).windows(stage, run.tokenizer, window, k, state.cursor)?;
    observe(Event::StageStarted {
        stage,
        from: state.step,
        steps: config.steps,
        parameters: model.num_params() as u64,
    });

    let mut tensorboard = EventWriter::create(&run.directory.tensorboard(stage), state.step)?;
    // Tokens and seconds at the last logged row.
    let mut row_before = (state.tokens, state.seconds);
    let mut last_saved: Option<u64> = resumed.map(|_| state.step);
    while state.step < config.steps {
        let step = state.step + 1;
        let begun = Instant::now();

        let part = |part: usize| -> Result<Part> {
            Ok(Part {
                tokens: text.next_batch(config.batch_windows)?,
                windows: config.batch_windows,
                draws: mix(stage_seed, (step << 16) | part as u64),
            })
        };
        let parts: Vec<Part> = (0..config.accumulate).map(part).collect::<Result<_>>()?;
        let Summed {
            losses,
            loss,
            mut gradients,
        } = parallel::gradients(task, &model, &parts, run.devices, method, k)?;
        let norm = norm_of(&model, &gradients);
        let grad_norm = norm.map_or(Ok(0.0), |norm| run.devices.read(0, norm))?;
        clip_to(
            &model,
            &mut gradients,
            grad_norm,
            experiment.optim.clip_norm,
        );
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::NotFinite {
                stage,
                step,
                what: if loss.is_finite() {
                    "the gradient norm"
                } else {
                    "the loss"
                },
                epoch: state.cursor.epoch,
                position: state.cursor.position,
                checkpoint: last_saved.map_or("none".to_owned(), |step| {
                    run.directory.checkpoint(stage, step).display().to_string()
                }),
            });
        }
        let lr = config.lr(peak_lr, step);
        model = optimizer.step(lr, model, gradients);

        let tokens = config.tokens_per_step(window);
        let seconds = begun.elapsed().as_secs_f64();
        state.step = step;
        state.tokens += tokens;
        state.flops += tokens as f64 * task.flops_per_token();
        state.seconds += seconds;
        state.cursor = text.cursor();
        observe(Event::Stepped {
            stage,
            step,
            loss,
            tokens_per_s: tokens as f64 / seconds,
        });

        if step.is_multiple_of(config.log_every) || step == config.steps || step == 1 {
            let tokens_per_s =
                (state.tokens - row_before.0) as f64 / (state.seconds - row_before.1);
            row_before = (state.tokens, state.seconds);
            let part = |name: &str| {
                let find = |(at, loss): &'_ (usize, StepLoss)| {
                    let part = loss.parts.iter().find(|(n, _)| *n == name);
                    part.map(|(_, value)| (*at, value.clone()))
                };
                let values: Option<Vec<_>> = losses.iter().map(find).collect();
                let values = values.filter(|values| !values.is_empty());
                values
                    .map(|values| mean(run.devices, values.iter().map(|(at, t)| (*at, t))))
                    .transpose()
            };
            let row = MetricRow {
                stage,
                step,
                tokens: state.tokens,
                flops: state.flops,
                seconds: state.seconds,
                loss,
                tokens_per_s,
                mfu: run
                    .peak_flops
                    .map(|peak| tokens_per_s * task.flops_per_token() / peak),
                grad_norm,
                lr,
                kl: part("kl")?,
                reconstruction: part("reconstruction")?,
                token_accuracy: None,
                attraction: part("attraction")?,
                repulsion: part("repulsion")?,
                auxiliary: part("auxiliary")?,
                log_score: part("log_score")?,
                brier_loss: part("brier_loss")?,
            };
            run.metrics.write(&row)?;
            tensorboard.record(step, "", &row)?;
            observe(Event::Logged(&row));
        }

        let interrupted = run.interrupt.load(Ordering::SeqCst);
        let evaluate = config.eval_every > 0
            && (step.is_multiple_of(config.eval_every) || step == config.steps);
        let due = step.is_multiple_of(config.checkpoint_every) || step == config.steps;
        if evaluate || due || interrupted {
            run.devices.check_first()?;
        }
        if evaluate {
            let point = EvalPoint {
                stage,
                step,
                tokens: state.tokens,
                ..empty_point(stage)
            };
            let point = task.evaluate(&model.valid(), point)?;
            run.history.write(&point)?;
            tensorboard.record(step, "eval/", &point)?;
            observe(Event::Evaluated(&point));
        }
        if due || interrupted {
            state.wall_seconds = run.wall_seconds();
            state.peak_rss_bytes = machine::peak_rss_bytes().max(state.peak_rss_bytes);
            run.metrics.sync()?;
            run.history.sync()?;
            let path = run.directory.checkpoint(stage, step);
            let writer = task.checkpoint(&model, &path, run.tokenizer)?;
            let writer = writer
                .with_text(experiment.data.split(), run.text.content(stage).to_owned())
                .with_lead_in(run.lead_in());
            optimizer
                .save(writer.path(OPTIM))
                .map_err(|e| Error::io(&path)(std::io::Error::other(e.to_string())))?;
            writer.write_json(STATE, &state)?;
            writer.finish()?;
            let keep = experiment.checkpoint.keep;
            publish(run.directory, stage, last_saved, step, keep)?;
            last_saved = Some(step);
            observe(Event::Saved(&path));
        }
        if interrupted && step < config.steps {
            text.tell_bad_lines(observe);
            return Ok(None);
        }
    }
    text.tell_bad_lines(observe);
    Ok(Some((model.valid(), state)))
}

fn empty_point(stage: Stage) -> EvalPoint {
    EvalPoint {
        stage,
        step: 0,
        tokens: 0,
        token_accuracy: None,
        noisy_token_accuracy: None,
        brier: None,
        brier_se: None,
        brier_lm: None,
        brier_lm_se: None,
        cross_entropy: None,
        permuted_loss_ratio: None,
        noiseless_token_accuracy: None,
        window_brier: None,
        window_cross_entropy: None,
        protocol: None,
    }
}
