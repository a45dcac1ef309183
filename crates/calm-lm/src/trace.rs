//! One deterministic forward pass with given inputs, for whoever ports or debugs: every draw enters as
//! a tensor, there is no dropout, and all is f32.

mod inputs;

use burn::tensor::{Int, Tensor};
use calm_autoencoder::ChunkAutoencoder;
use calm_baseline::TokenModel;
use calm_likelihood_free::{DiffusionDraws, DiffusionLoss, FlowDraws, Head, Solver, energy_score};
use calm_nn::Posterior;
use calm_weights::TensorToWrite;

use crate::{AnyModel, CalmModel, Error, ModelConfig, Result};
use inputs::INPUTS;
pub use inputs::TraceInputs;

/// What was computed, under its name.
#[derive(Default)]
struct Outputs(Vec<TensorToWrite>);

impl Outputs {
    fn add<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) {
        let shape = tensor.dims();
        let values = tensor.into_data().iter().collect();
        self.0.push(TensorToWrite::floats(name, shape, values));
    }
}

/// Computes whatever the inputs allow. With `S = tokens / K` chunks per row, the backbone reads chunks
/// `1..S-1` and predicts `2..S`. *Positions* are the predicted chunks in row-major order,
/// `P = batch * (S - 1)`, less those that the mask leaves out.
///
/// Inputs, all optional:
/// - `input_ids` `[batch, tokens]`, whole numbers
/// - `latent` `[batch, S, l]`: what is decoded instead of the posterior's means
/// - `posterior_noise` `[M, P, l]`: targets are `mean + exp(log_std) * noise`
/// - `head_condition` `[P, d]`: instead of the backbone's hidden states
/// - `target` `[M, P, l]`: instead of these targets
/// - `target_mask` `[batch, S - 1]`, true (or not 0) for positions that count
/// - energy head: `head_noise` `[N, P, noise_size]`
/// - flow: `t` `[M, P]` and `x0` `[M, P, l]` for the loss, `sample_noise` `[N, P, l]` for samples
/// - diffusion: `t` `[M, P]`, whole numbers, and `noise` `[M, P, l]` for the loss, `sample_noise`
///   `[1 + steps, N, P, l]` for samples: the start, then one for each step, times downwards
///
/// Outputs:
/// - `ae.mean`, `ae.log_std` `[batch, S, l]`, `ae.logits` `[batch, tokens, V]`
/// - `backbone.hidden` `[batch, S - 1, d]`
/// - `head.samples` `[N, P, l]`, `head.per_position` (energy `[P]`, flow and diffusion `[M, P]`, of
///   diffusion in the released form) and its mean `head.loss` `[1]`
/// - `brier` `[4]`, of the first two samples, where K >= 4
/// - of a token model `logits` `[batch, tokens, V]` and `loss` `[1]`, the mean cross-entropy of next
///   tokens
///
/// A flow head samples by `solver`, 10 steps of the midpoint rule or 20 of Euler's, or as it is
/// configured.
///
/// # Errors
/// Inputs of other shapes, by name, or none that anything can be computed from.
pub fn trace(
    model: &AnyModel,
    inputs: &TraceInputs<'_>,
    solver: Option<Solver>,
) -> Result<Vec<TensorToWrite>> {
    let mut outputs = Outputs::default();
    match model {
        AnyModel::Autoencoder(_, model) => {
            autoencoder(model, inputs, &mut outputs)?;
        }
        AnyModel::Calm(config, model) => calm(config, model, inputs, solver, &mut outputs)?,
        AnyModel::TokenModel(config, model) => {
            token_model(model, config.vocab_size, inputs, &mut outputs)?;
        }
    }
    match outputs.0.is_empty() {
        true => {
            let known = INPUTS.join(", ");
            let detail = format!("nothing can be computed from these; inputs are {known}");
            Err(inputs.refused(detail))
        }
        false => Ok(outputs.0),
    }
}

fn token_model(
    model: &TokenModel,
    vocab: usize,
    inputs: &TraceInputs<'_>,
    outputs: &mut Outputs,
) -> Result<()> {
    let Some(tokens) = inputs.tokens(vocab, 1)? else {
        return Ok(());
    };
    let [batch, count] = tokens.dims();
    let hidden = model.hidden(tokens.clone());
    let d = hidden.dims()[2];
    let logits = model
        .output_layer()
        .logits(hidden.reshape([batch * count, d]));
    outputs.add("logits", logits.reshape([batch, count, vocab]));
    if count > 1 {
        outputs.add("loss", model.loss(tokens));
    }
    Ok(())
}

/// The posterior of every chunk `[batch * S, l]`, where there are tokens.
fn autoencoder(
    model: &ChunkAutoencoder,
    inputs: &TraceInputs<'_>,
    outputs: &mut Outputs,
) -> Result<Option<(Tensor<2, Int>, Posterior)>> {
    let k = model.chunk_size();
    let l = model.latent_size();
    let tokens = inputs.tokens(model.vocab_size(), k)?;
    let encoded = tokens.map(|tokens| {
        let [batch, count] = tokens.dims();
        let posterior = model.encode(tokens.clone().reshape([batch * count / k, k]));
        (tokens, posterior)
    });
    let mut decoded = None;
    if let Some((tokens, posterior)) = &encoded {
        let [batch, count] = tokens.dims();
        let shape = [batch, count / k, l];
        let mean = posterior.mean.clone().reshape(shape);
        outputs.add("ae.mean", mean.clone());
        outputs.add("ae.log_std", posterior.log_std.clone().reshape(shape));
        decoded = Some(mean);
    }
    if let Some(latent) = inputs.of_shape("latent", [0, 0, l])? {
        decoded = Some(latent);
    }
    if let Some(latent) = decoded {
        let [batch, steps, _] = latent.dims();
        let logits = model.logits(latent.reshape([batch * steps, l]));
        outputs.add(
            "ae.logits",
            logits.reshape([batch, steps * k, model.vocab_size()]),
        );
    }
    Ok(encoded)
}

/// What the head is asked for: conditions, targets and the true chunks, as far as inputs say.
struct Positions {
    condition: Tensor<2>,
    targets: Option<Tensor<3>>,
    tokens: Option<Tensor<2, Int>>,
}

fn calm(
    config: &ModelConfig,
    model: &CalmModel,
    inputs: &TraceInputs<'_>,
    solver: Option<Solver>,
    outputs: &mut Outputs,
) -> Result<()> {
    if config.is_local() {
        let detail = "a model with a local decoder has no head to trace".to_owned();
        return Err(Error::TraceInput {
            path: inputs.path(),
            detail,
        });
    }
    let encoded = autoencoder(&model.autoencoder, inputs, outputs)?;
    let Some(positions) = positions(config, model, encoded, inputs, outputs)? else {
        return Ok(());
    };
    let Positions {
        condition,
        targets,
        tokens,
    } = positions;
    let ([p, _], l) = (condition.dims(), config.latent_size);
    let of_targets = targets.as_ref().map(|targets| targets.dims()[0]);
    let (samples, per_position) = match &model.language_model.head {
        Head::Energy(head) => {
            let noise = inputs.of_shape("head_noise", [0, p, config.head.noise_size])?;
            let samples = noise.map(|noise| head.forward(condition, noise));
            let score = match (&samples, targets) {
                (Some(samples), Some(targets)) if samples.dims()[0] >= 2 => {
                    let score = energy_score(samples.clone(), targets, config.head.alpha);
                    Some(score.loss().unsqueeze::<2>())
                }
                _ => None,
            };
            (samples, score)
        }
        Head::Flow(head) => {
            let m = of_targets.unwrap_or(0);
            let times = inputs.of_shape("t", [m, p])?;
            if let Some(times) = &times {
                let inside = |t: f32| (0.0..1.0).contains(&t);
                let outside = times.clone().into_data().iter().find(|&t| !inside(t));
                if let Some(outside) = outside {
                    return Err(inputs.refused(format!("t: {outside} is no time in [0, 1)")));
                }
            }
            let start = inputs.of_shape("x0", [m, p, l])?;
            let errors = match (targets, times, start) {
                (Some(targets), Some(times), Some(noise)) => {
                    let draws = FlowDraws {
                        targets,
                        times,
                        noise,
                    };
                    Some(head.errors(condition.clone(), draws))
                }
                _ => None,
            };
            let (solver, steps) = match solver {
                None => (config.head.flow_solver, config.head.flow_steps),
                Some(Solver::Midpoint) => (Solver::Midpoint, 10),
                Some(Solver::Euler) => (Solver::Euler, 20),
            };
            let noise = inputs.of_shape("sample_noise", [0, p, l])?;
            let samples = noise.map(|noise| head.transport(condition, noise, solver, steps));
            (samples, errors)
        }
        Head::Diffusion(head) => {
            let m = of_targets.unwrap_or(0);
            let times = inputs.times(m, p)?;
            let noise = inputs.of_shape("noise", [m, p, l])?;
            let losses = match (targets, times, noise) {
                (Some(targets), Some(times), Some(noise)) => {
                    let draws = DiffusionDraws {
                        targets,
                        times,
                        noise,
                    };
                    let terms = head.terms(condition.clone(), draws, DiffusionLoss::Released);
                    Some(terms.squared + terms.variational)
                }
                _ => None,
            };
            let steps = config.head.diffusion_steps;
            let noise = inputs.of_shape("sample_noise", [steps + 1, 0, p, l])?;
            let samples = noise.map(|noise| {
                let mut parts = noise
                    .split(1, 0)
                    .into_iter()
                    .map(|part| part.squeeze_dim::<3>(0));
                let start = parts.next().expect("a start and one for each step");
                head.denoise(condition, start, steps, || {
                    parts.next().expect("one for each step")
                })
            });
            (samples, losses)
        }
    };
    if let Some(losses) = per_position {
        match &model.language_model.head {
            // Its targets are scored together.
            Head::Energy(_) => {
                outputs.add("head.per_position", losses.clone().squeeze_dim::<1>(0));
            }
            _ => outputs.add("head.per_position", losses.clone()),
        }
        outputs.add("head.loss", losses.mean());
    }
    if let Some(samples) = samples {
        if let Some(tokens) = tokens
            && samples.dims()[0] >= 2
            && config.chunk_size >= 4
        {
            outputs.add("brier", brier(&model.autoencoder, samples.clone(), tokens));
        }
        outputs.add("head.samples", samples);
    }
    Ok(())
}

/// Runs the backbone where there are tokens, and puts together what the head needs.
fn positions(
    config: &ModelConfig,
    model: &CalmModel,
    encoded: Option<(Tensor<2, Int>, Posterior)>,
    inputs: &TraceInputs<'_>,
    outputs: &mut Outputs,
) -> Result<Option<Positions>> {
    let (k, l, d) = (
        config.chunk_size,
        config.latent_size,
        config.backbone.hidden_size,
    );
    // Of the predicted chunks: states, tokens and posterior.
    let mut predicted = None;
    if let Some((tokens, posterior)) = encoded
        && tokens.dims()[1] > k
    {
        let [batch, count] = tokens.dims();
        let steps = count / k;
        let chunks = tokens.reshape([batch, steps, k]);
        let seen = chunks.clone().narrow(1, 0, steps - 1);
        let hidden = model.language_model.backbone.forward(seen);
        outputs.add("backbone.hidden", hidden.clone());
        let next = |x: Tensor<2>| {
            let x = x.reshape([batch, steps, l]).narrow(1, 1, steps - 1);
            x.reshape([batch * (steps - 1), l])
        };
        let next_tokens = chunks
            .narrow(1, 1, steps - 1)
            .reshape([batch * (steps - 1), k]);
        let (mean, log_std) = (next(posterior.mean), next(posterior.log_std));
        let hidden = hidden.reshape([batch * (steps - 1), d]);
        let Some(rows) = inputs.counted(batch, steps - 1)? else {
            return Err(inputs.refused("target_mask leaves out every position".to_owned()));
        };
        let select = |x: Tensor<2>| x.select(0, rows.clone());
        let posterior = Posterior {
            mean: select(mean),
            log_std: select(log_std),
        };
        predicted = Some((
            select(hidden),
            next_tokens.select(0, rows.clone()),
            posterior,
        ));
    }
    let given = inputs.of_shape("head_condition", [0, d])?;
    let p = match (&given, &predicted) {
        (Some(given), _) => given.dims()[0],
        (None, Some((hidden, ..))) => hidden.dims()[0],
        (None, None) => return Ok(None),
    };
    if let Some((hidden, ..)) = &predicted
        && hidden.dims()[0] != p
    {
        let of_tokens = hidden.dims()[0];
        let detail = format!("head_condition is of {p} positions, input_ids of {of_tokens}");
        return Err(inputs.refused(detail));
    }
    let target = inputs.of_shape("target", [0, p, l])?;
    let noise = match (&target, &predicted) {
        (None, Some(_)) => inputs.of_shape("posterior_noise", [0, p, l])?,
        _ => None,
    };
    let (hidden, tokens, posterior) = match predicted {
        Some((hidden, tokens, posterior)) => (Some(hidden), Some(tokens), Some(posterior)),
        None => (None, None, None),
    };
    let targets = target.or_else(|| {
        let (posterior, noise) = (posterior?, noise?);
        let spread = posterior.log_std.exp().unsqueeze::<3>();
        Some(posterior.mean.unsqueeze::<3>() + spread * noise)
    });
    let condition = given.or(hidden).expect("one of them gave their number");
    Ok(Some(Positions {
        condition,
        targets,
        tokens,
    }))
}

/// Brier-1 to Brier-4 of the first two samples, mean over positions.
fn brier(model: &ChunkAutoencoder, samples: Tensor<3>, tokens: Tensor<2, Int>) -> Tensor<1> {
    let device = samples.device();
    let [_, p, l] = samples.dims();
    let k = model.chunk_size();
    let both = samples.narrow(0, 0, 2).reshape([2 * p, l]);
    let read = |x: Tensor<2, Int>| -> Vec<i64> { x.into_data().iter().collect() };
    let (drawn, truth) = (read(model.decode(both)), read(tokens));
    let (first, second) = drawn.split_at(p * k);
    let scores: Vec<f32> = (1..=calm_nn::MAX_N)
        .map(|n| {
            let starts = (0..p).map(|i| i * k..i * k + n);
            let score = |at: std::ops::Range<usize>| {
                let [x, y, z] = [first, second, &truth].map(|ids| &ids[at.clone()]);
                i32::from(x == z) + i32::from(y == z) - i32::from(x == y)
            };
            starts.map(score).sum::<i32>() as f32 / p as f32
        })
        .collect();
    Tensor::from_floats(scores.as_slice(), &device)
}
