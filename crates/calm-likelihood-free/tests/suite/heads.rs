//! Flow and diffusion against the reference, and what holds for every head.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use calm_fixtures::{Fixture, FixtureError, Weights, assert_close, gradient_sizes, values};
use calm_likelihood_free::{
    Denoiser, DiffusionDraws, DiffusionHead, DiffusionHeadConfig, DiffusionLoss, FlowDraws,
    FlowHead, FlowHeadConfig, GenerativeHead, Head, HeadConfig, HeadKind, HeadSettings, Solver,
};
use calm_nn::{ConfigError, Cost, HostDraws, Init, Posterior, RandomStream};

/// The weights of the fixture's network.
fn fill(net: &mut Denoiser, f: &Fixture, device: &Device) -> Result<(), FixtureError> {
    let mut w = Weights::new(f, device)?;
    let at = |name: &str| format!("generative_head.net.{name}");
    w.linear(&at("time_embed.mlp.0"), &mut net.time_in)?;
    w.linear(&at("time_embed.mlp.2"), &mut net.time_out)?;
    w.linear(&at("cond_embed"), &mut net.condition)?;
    w.linear(&at("input_proj"), &mut net.input)?;
    for (i, block) in net.blocks.iter_mut().enumerate() {
        let at = |name: &str| at(&format!("res_blocks.{i}.{name}"));
        w.layer_norm(&at("in_ln"), &mut block.norm)?;
        w.linear(&at("mlp.0"), &mut block.up)?;
        w.linear(&at("mlp.2"), &mut block.down)?;
        w.linear(&at("adaLN_modulation.1"), &mut block.modulation)?;
    }
    w.linear(&at("final_layer.adaLN_modulation.1"), &mut net.modulation)?;
    w.linear(&at("final_layer.linear"), &mut net.output)?;
    w.finish()
}

fn flow(f: &Fixture, device: &Device) -> Result<FlowHead, FixtureError> {
    let config = FlowHeadConfig {
        hidden_size: f.whole("config/hidden_size")?,
        latent_size: f.whole("config/latent_size")?,
        blocks: f.whole("config/num_mlp_layers")?,
        copies: 4,
        solver: Solver::Midpoint,
        steps: 4,
    };
    let mut head = config.init(&mut Init::new(0, device));
    fill(&mut head.net, f, device)?;
    Ok(head)
}

fn diffusion(f: &Fixture, device: &Device) -> Result<DiffusionHead, FixtureError> {
    let config = DiffusionHeadConfig {
        hidden_size: f.whole("config/hidden_size")?,
        latent_size: f.whole("config/latent_size")?,
        blocks: f.whole("config/num_mlp_layers")?,
        copies: 4,
        loss: DiffusionLoss::Clean,
        steps: 5,
        clip: 0.0,
    };
    let mut head = config.init(&mut Init::new(0, device));
    fill(&mut head.net, f, device)?;
    Ok(head)
}

#[test]
fn flow_errors_and_latents_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("flow_head")?;
    let head = flow(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let noise = f.tensor::<3>("inputs/noise", &device)?;
    let draws = FlowDraws {
        targets: f.tensor("inputs/targets", &device)?,
        times: f.tensor("inputs/times", &device)?,
        noise: noise.clone(),
    };
    assert_close(
        head.errors(hidden.clone(), draws),
        &f.golden("outputs/errors")?,
        1e-4,
    );
    for (name, solver, steps) in [
        ("euler", Solver::Euler, 7),
        ("midpoint", Solver::Midpoint, 4),
    ] {
        let found = head.transport(hidden.clone(), noise.clone(), solver, steps);
        assert_close(found, &f.golden(&format!("outputs/{name}"))?, 1e-4);
    }
    Ok(())
}

fn diffusion_draws(f: &Fixture, device: &Device) -> Result<DiffusionDraws, FixtureError> {
    let times = f.golden("inputs/times")?.values;
    let times: Vec<i64> = times.iter().map(|&t| t as i64).collect();
    Ok(DiffusionDraws {
        targets: f.tensor("inputs/targets", device)?,
        times: Tensor::<1, Int>::from_ints(times.as_slice(), device).reshape([4, 3]),
        noise: f.tensor("inputs/noise", device)?,
    })
}

#[test]
fn diffusion_terms_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("diffusion_head")?;
    let head = diffusion(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    for (loss, name) in [
        (DiffusionLoss::Released, "bits"),
        (DiffusionLoss::Clean, "nats"),
    ] {
        let terms = head.terms(hidden.clone(), diffusion_draws(&f, &device)?, loss);
        assert_close(terms.squared, &f.golden("outputs/squared")?, 1e-4);
        let (found, expected) = (
            values(terms.variational),
            f.golden(&format!("outputs/{name}"))?,
        );
        for (a, b) in found.iter().zip(&expected.values) {
            // Differences of nearly equal variances lose digits in f32.
            approx::assert_relative_eq!(*a, *b, epsilon = 2e-4, max_relative = 2e-3);
        }
    }
    Ok(())
}

/// The unclipped sampler amplifies rounding, so the tolerance is relative to the largest entry.
#[test]
fn diffusion_latents_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("diffusion_head")?;
    let head = diffusion(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let start = f.tensor::<3>("inputs/noise", &device)?;
    let steps = f.tensor::<4>("inputs/steps", &device)?;
    let mut taken = 0;
    let found = head.denoise(hidden, start, 5, || {
        taken += 1;
        steps.clone().narrow(0, taken - 1, 1).squeeze_dim(0)
    });
    assert_eq!(taken, 4);
    let expected = f.golden("outputs/samples")?.values;
    let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    for (a, b) in values(found).iter().zip(expected) {
        approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-4 * largest);
    }
    Ok(())
}

const KINDS: [HeadKind; 3] = [HeadKind::Energy, HeadKind::Flow, HeadKind::Diffusion];
const D: usize = 8;
const L: usize = 4;

/// A small configuration in which no two sizes are equal.
fn config(kind: HeadKind) -> HeadConfig {
    HeadConfig {
        hidden_size: D,
        latent_size: L,
        settings: HeadSettings {
            kind,
            blocks: 2,
            noise_size: 5,
            samples: 6,
            posterior_samples: 7,
            flow_steps: 3,
            diffusion_steps: 10,
            ..HeadSettings::default()
        },
    }
}

/// A head none of whose layers is zero.
fn lively(kind: HeadKind, device: &Device) -> Head {
    let mut head = config(kind).init(&mut Init::new(1, device).with_std(0.3));
    let init = &mut Init::new(2, device).with_std(0.3);
    let output = head.output_mut();
    let [rows, columns] = output.weight.dims();
    *output = init.linear(rows, columns);
    let net = match &mut head {
        Head::Energy(_) => return head,
        Head::Flow(head) => &mut head.net,
        Head::Diffusion(head) => &mut head.net,
    };
    net.modulation = init.linear(D, 2 * D);
    for block in &mut net.blocks {
        block.modulation = init.linear(D, 3 * D);
    }
    head
}

fn tensor<const N: usize>(shape: [usize; N], seed: u64, device: &Device) -> Tensor<N> {
    let values = RandomStream::new(seed).normal(shape.iter().product());
    Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape)
}

fn target(positions: usize, device: &Device) -> Posterior {
    Posterior {
        mean: tensor([positions, L], 11, device),
        log_std: tensor([positions, L], 12, device) * 0.3,
    }
}

#[test]
fn samples_have_their_shape_and_differ() {
    let device = Device::flex();
    for kind in KINDS {
        let head = lively(kind, &device);
        let hidden = tensor([3, D], 5, &device);
        let drawn = head.sample(hidden.clone(), 2, &mut HostDraws::new(1));
        assert_eq!(drawn.dims(), [2, 3, L]);
        let again = head.sample(hidden, 2, &mut HostDraws::new(1));
        assert_eq!(values(drawn.clone()), values(again), "{kind:?}");
        let apart = values(drawn.clone().narrow(0, 0, 1) - drawn.narrow(0, 1, 1));
        assert!(apart.iter().all(|x| x.abs() > 1e-6), "{kind:?}: {apart:?}");
    }
}

/// Every sample and every position stands alone: a part of the states with their part of the noise
/// gives the same.
#[test]
fn positions_do_not_see_each_other() {
    let device = Device::flex();
    for kind in KINDS {
        let head = lively(kind, &device);
        let hidden = tensor([3, D], 5, &device);
        let all = head.sample(hidden.clone(), 1, &mut HostDraws::new(3));
        // With one sample the draws of the first position come first in every request.
        let changed = Tensor::cat(vec![hidden.narrow(0, 0, 1), tensor([2, D], 7, &device)], 0);
        let other = head.sample(changed, 1, &mut HostDraws::new(3));
        let difference = (all - other).abs();
        let first = values(difference.clone().narrow(1, 0, 1));
        let rest = values(difference.narrow(1, 1, 2));
        assert!(first.iter().all(|&x| x < 1e-5), "{kind:?}: {first:?}");
        assert!(rest.iter().any(|&x| x > 1e-3), "{kind:?}: {rest:?}");
    }
}

/// Directional derivatives of the loss by the hidden states against central differences. Diffusion's
/// variational term is left out of it: its gradient is cut on purpose.
#[test]
fn gradients_are_those_of_differences() {
    let device = Device::flex();
    for kind in KINDS {
        let head = lively(kind, &device);
        let (hidden, way) = (tensor([3, D], 5, &device), tensor([3, D], 6, &device));
        let loss = |head: &Head, hidden: Tensor<2>, device: &Device| {
            let loss = head.loss(hidden, &target(3, device), &mut HostDraws::new(8));
            let squared = loss.parts.iter().find(|(name, _)| *name == "squared");
            squared.map_or(loss.total, |(_, squared)| squared.clone())
        };
        let at = |step: f64| {
            let moved = hidden.clone() + way.clone() * step;
            values(loss(&head, moved, &device))[0]
        };
        let h = 1e-2;
        let expected = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);

        let autodiff = device.clone().autodiff();
        let states = Tensor::from_inner(hidden.clone()).require_grad();
        let gradients = loss(&head.clone().train(), states.clone(), &autodiff).backward();
        let gradient = states.grad(&gradients).expect("a gradient");
        let found = values((gradient * way.clone()).sum())[0];
        approx::assert_relative_eq!(found, expected, max_relative = 2e-3, epsilon = 1e-4);
        assert!(expected.abs() > 1e-3, "{kind:?}: {expected}");
    }
}

/// The variational term teaches variances, not noise: of the last layer's columns the second half.
#[test]
fn the_variational_term_moves_variances_alone() {
    let device = Device::flex().autodiff();
    let Head::Diffusion(head) = lively(HeadKind::Diffusion, &device) else {
        panic!("a diffusion head");
    };
    let draws = |device: &Device| DiffusionDraws {
        targets: tensor([2, 3, L], 21, device),
        times: Tensor::from_ints([[0, 3, 400], [999, 0, 1]], device),
        noise: tensor([2, 3, L], 22, device),
    };
    for loss in [DiffusionLoss::Clean, DiffusionLoss::Released] {
        let hidden = tensor([3, D], 5, &device);
        let term = head
            .terms(hidden.clone(), draws(&device), loss)
            .variational
            .mean();
        let gradients = term.backward();
        let bias = head.net.output.bias.as_ref().unwrap().val();
        let gradient = values(bias.grad(&gradients).expect("a gradient"));
        assert!(gradient[..L].iter().all(|&g| g == 0.0), "{gradient:?}");

        let inner = head.valid();
        let at = |i: usize, step: f64| {
            let mut moved = inner.clone();
            let mut way = [0.0f32; 2 * L];
            way[i] = step as f32;
            let plain = Device::flex();
            let way = Tensor::<1>::from_floats(way, &plain);
            moved.net.output.bias = moved.net.output.bias.map(|bias| bias.map(|b| b + way));
            let hidden = hidden.clone().inner();
            values(moved.terms(hidden, draws(&plain), loss).variational.mean())[0]
        };
        for (i, &found) in gradient.iter().enumerate().skip(L) {
            let expected = (at(i, 5e-2) - at(i, -5e-2)) / 1e-1;
            approx::assert_relative_eq!(found, expected, max_relative = 2e-2, epsilon = 2e-3);
        }
    }
}

/// At the start a head says the same whatever the state, and only its last layer learns (of the
/// energy head; of the others the last modulation has a gradient through nothing either).
#[test]
fn the_first_step_moves_the_last_layer_alone() {
    let device = Device::flex().autodiff();
    for kind in KINDS {
        let head = config(kind).init(&mut Init::new(2, &device));
        let hidden = tensor([3, D], 6, &device).require_grad();
        let loss = head.loss(hidden.clone(), &target(3, &device), &mut HostDraws::new(3));
        let gradients = loss.total.backward();
        for (path, size) in gradient_sizes(&head, &gradients) {
            let last = path.contains("final_out") || path.contains("net.output");
            assert_eq!(size.unwrap_or(0.0) > 0.0, last, "{kind:?} {path}: {size:?}");
        }
        let of_hidden = hidden.grad(&gradients);
        assert_eq!(of_hidden.map_or(0.0, |g| values(g.abs().max())[0]), 0.0);
    }
}

/// Trained on a Gaussian that the state names, heads draw it: means and spreads.
#[test]
fn heads_learn_a_gaussian() {
    use burn::optim::{AdamWConfig, GradientsParams};
    let device = Device::flex().autodiff();
    for kind in KINDS {
        let mut config = config(kind);
        config.hidden_size = 16;
        config.settings.flow_steps = 20;
        config.settings.diffusion_steps = 50;
        config.settings.diffusion_clip = 3.0;
        let mut head = config.init(&mut Init::new(4, &device).with_std(0.25));
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
        let positions = 64;
        // Half of the positions want one Gaussian, half another.
        let sign = |device: &Device| {
            let signs: Vec<f32> = (0..positions)
                .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 })
                .collect();
            Tensor::<1>::from_floats(signs.as_slice(), device).reshape([positions, 1])
        };
        let states = |device: &Device| sign(device).expand([positions, 16]);
        let posterior = |device: &Device| Posterior {
            mean: (sign(device) * 0.8).expand([positions, L]),
            log_std: (sign(device) * 0.5 - 1.0).expand([positions, L]),
        };
        for step in 0..600 {
            let mut draws = HostDraws::new(step);
            let loss = head
                .loss(states(&device), &posterior(&device), &mut draws)
                .total;
            let gradients = GradientsParams::from_grads(loss.backward(), &head);
            let lr = 5e-3 * (1.0 - step as f64 / 600.0);
            head = optimizer.step(lr, head, gradients);
        }
        let (head, device) = (head.valid(), Device::flex());
        let hidden = states(&device).narrow(0, 0, 2);
        let drawn = head.sample(hidden, 2000, &mut HostDraws::new(9));
        for (i, (mean, std)) in [(0.8, (-0.5f64).exp()), (-0.8, (-1.5f64).exp())]
            .iter()
            .enumerate()
        {
            let x = values(drawn.clone().narrow(1, i, 1));
            let n = x.len() as f64;
            let found = x.iter().sum::<f64>() / n;
            let spread = (x.iter().map(|v| (v - found).powi(2)).sum::<f64>() / n).sqrt();
            assert!(
                (found - mean).abs() < 0.12,
                "{kind:?}: mean {found} of {mean}"
            );
            assert!(
                (spread / std - 1.0).abs() < 0.25,
                "{kind:?}: spread {spread} of {std}"
            );
        }
    }
}

#[test]
fn counted_parameters_and_work_are_those_of_the_modules() {
    for kind in KINDS {
        let config = config(kind);
        let head = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!(config.parameters(), head.num_params() as u64, "{kind:?}");
        let net = match &head {
            Head::Energy(_) => continue,
            Head::Flow(head) => &head.net,
            Head::Diffusion(head) => &head.net,
        };
        let size = |layer: &burn::nn::Linear| layer.weight.dims().iter().product::<usize>() as u64;
        let (mut time, mut latent) = (size(&net.time_in) + size(&net.time_out), 0);
        time += size(&net.modulation);
        latent += size(&net.input) + size(&net.output);
        for block in &net.blocks {
            time += size(&block.modulation);
            latent += size(&block.up) + size(&block.down);
        }
        let condition = size(&net.condition);
        assert_eq!(config.loss_macs(), condition + 6 * (time + latent));
        let evaluations = if kind == HeadKind::Flow { 6 } else { 10 };
        assert_eq!(
            config.sample_macs(9),
            condition + evaluations * (time + 9 * latent)
        );
        assert_eq!(config.forward_macs(0), config.sample_macs(1));
    }
}

#[test]
fn steps_outside_their_range_are_refused() {
    for steps in [0, 1, 1001] {
        let mut config = config(HeadKind::Diffusion);
        config.settings.diffusion_steps = steps;
        let error = config.validate().unwrap_err();
        assert!(
            matches!(
                error,
                ConfigError::Range {
                    field: "diffusion_steps",
                    ..
                }
            ),
            "{error}"
        );
    }
    let mut config = config(HeadKind::Flow);
    config.settings.flow_steps = 0;
    let error = config.validate().unwrap_err();
    assert_eq!(
        error,
        ConfigError::Zero {
            field: "flow_steps"
        }
    );
}
