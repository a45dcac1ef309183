//! The energy head: reference values, its loss, and its zero start.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use calm_fixtures::{Fixture, FixtureError, Weights, assert_close, gradient_sizes, values};
use calm_likelihood_free::{EnergyHead, EnergyHeadConfig, GenerativeHead, energy_score};
use calm_nn::{ConfigError, Cost, Draws, HostDraws, Init, RandomStream, Replay};

/// A small configuration in which no two sizes are equal.
fn small() -> EnergyHeadConfig {
    EnergyHeadConfig {
        hidden_size: 8,
        latent_size: 6,
        blocks: 2,
        noise_size: 5,
        samples: 4,
        posterior_samples: 7,
        antithetic: false,
        alpha: 1.0,
    }
}

/// The head of the fixture. `W_1` is stored as one matrix, x half first.
fn reference(f: &Fixture, device: &Device) -> Result<EnergyHead, FixtureError> {
    let config = EnergyHeadConfig {
        hidden_size: f.whole("config/hidden_size")?,
        latent_size: f.whole("config/latent_size")?,
        blocks: f.whole("config/num_mlp_layers")?,
        noise_size: f.whole("config/noise_size")?,
        ..small()
    };
    config.validate().expect("the fixture's sizes fit together");
    let d = config.hidden_size;
    let mut head = config.init(&mut Init::new(0, device));
    let mut w = Weights::new(f, device)?;
    w.linear("mlp_generator.noise_embd", &mut head.noise_in)?;
    w.layer_norm("mlp_generator.norm_noise", &mut head.noise_norm)?;
    w.linear("mlp_generator.hidden_embd", &mut head.hidden_in)?;
    w.layer_norm("mlp_generator.norm_hidden", &mut head.hidden_norm)?;
    for (i, block) in head.blocks.iter_mut().enumerate() {
        let at = |name: &str| format!("mlp_generator.mlp_blocks.{i}.{name}");
        w.layer_norm(&at("in_ln"), &mut block.norm)?;
        let both = w.take::<2>(&at("linears.0.weight"))?.transpose();
        let half = |from| both.clone().narrow(0, from, d);
        w.fill("W_1, x half", &mut block.from_x.weight, half(0))?;
        w.fill("W_1, c half", &mut block.from_condition.weight, half(d))?;
        let value = w.take::<1>(&at("linears.0.bias"))?;
        let bias = block.from_condition.bias.as_mut().expect("the bias of W_1");
        w.fill("W_1, bias", bias, value)?;
        w.linear(&at("linears.2"), &mut block.inner)?;
        w.linear(&at("linears.4"), &mut block.gate_up)?;
        w.linear(&at("down_proj"), &mut block.down)?;
    }
    w.layer_norm("mlp_generator.final_layer.in_ln", &mut head.final_norm)?;
    w.linear(
        "mlp_generator.final_layer.linears.0",
        &mut head.final_hidden,
    )?;
    w.linear("mlp_generator.final_layer.linears.2", &mut head.final_out)?;
    w.finish()?;
    Ok(head)
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = RandomStream::new(seed).normal(shape.iter().product());
    Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape)
}

fn target(device: &Device) -> calm_nn::Posterior {
    calm_nn::Posterior {
        mean: tensor([3, 6], 1, device),
        log_std: tensor([3, 6], 2, device) * 0.3,
    }
}

#[test]
fn samples_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let head = reference(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let noise = f.tensor::<3>("inputs/noise", &device)?;
    let expected = f.golden("outputs/samples")?;
    assert_close(head.forward(hidden.clone(), noise.clone()), &expected, 1e-5);
    // `sample` takes uniform values in [0, 1) and moves them to [-0.5, 0.5).
    let uniform = values(noise + 0.5).iter().map(|&x| x as f32).collect();
    assert_close(
        head.sample(hidden, 4, &mut Replay::new([uniform])),
        &expected,
        1e-5,
    );
    Ok(())
}

#[test]
fn the_condition_is_that_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let head = reference(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let condition = head.hidden_norm.forward(head.hidden_in.forward(hidden));
    assert_close(condition, &f.golden("outputs/condition")?, 1e-5);
    let noise = f.tensor::<3>("inputs/noise", &device)?;
    let embedded = head.noise_norm.forward(head.noise_in.forward(noise));
    assert_close(embedded, &f.golden("outputs/noise_embedding")?, 1e-5);
    Ok(())
}

#[test]
fn positions_and_samples_do_not_see_each_other() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let head = reference(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let noise = f.tensor::<3>("inputs/noise", &device)?;
    let all = head.forward(hidden.clone(), noise.clone());
    for position in 0..3 {
        for n in 0..4 {
            let alone = head.forward(
                hidden.clone().narrow(0, position, 1),
                noise.clone().narrow(0, n, 1).narrow(1, position, 1),
            );
            let among = values(all.clone().narrow(0, n, 1).narrow(1, position, 1));
            for (a, b) in values(alone).iter().zip(among) {
                approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-6);
            }
        }
    }
    Ok(())
}

/// Noise first, `N * positions * noise_size` uniform values; then `M * positions * l` normal ones.
#[test]
fn the_loss_is_the_score_of_its_parts_drawn_in_the_documented_order() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let head = reference(&f, &device)?;
    let (hidden, target) = (f.tensor::<2>("inputs/hidden", &device)?, target(&device));
    let uniform = RandomStream::new(3).uniform(4 * 3 * 5);
    let normal = RandomStream::new(4).normal(7 * 3 * 6);
    let mut draws = Replay::new([uniform.clone(), normal.clone()]);
    let loss = head.loss(hidden.clone(), &target, &mut draws);

    let reshape = |v: &[f32], shape| Tensor::<1>::from_floats(v, &device).reshape::<3, _>(shape);
    let samples = head.forward(hidden, reshape(&uniform, [4, 3, 5]) - 0.5);
    let eps = reshape(&normal, [7, 3, 6]);
    let std = target.log_std.exp().unsqueeze::<3>();
    let targets = target.mean.unsqueeze::<3>() + std * eps;
    let score = energy_score(samples, targets, 1.0);
    let close = |found: Tensor<1>, expected: Tensor<1>| {
        approx::assert_abs_diff_eq!(values(found)[0], values(expected)[0], epsilon = 1e-6);
    };
    close(loss.total, score.loss().mean());
    let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["attraction", "repulsion"]);
    close(loss.parts[0].1.clone(), score.attraction.mean());
    close(loss.parts[1].1.clone(), score.repulsion.mean());
    Ok(())
}

/// By key and by numbers: every second draw mirrors the one before, an odd last one stands alone.
#[test]
fn antithetic_draws_mirror_each_other() {
    let device = Device::flex();
    let target = target(&device);
    let eps = RandomStream::new(5).normal(2 * 18);
    let drawn = values(target.antithetic_samples(3, &mut Replay::new([eps.clone()])));
    let alone = values(target.samples(2, &mut Replay::new([eps])));
    let mean = values(target.mean);
    for i in 0..18 {
        let [first, mirrored, next] = [drawn[i], drawn[18 + i], drawn[36 + i]];
        approx::assert_abs_diff_eq!(first, alone[i], epsilon = 1e-6);
        approx::assert_abs_diff_eq!(first + mirrored, 2.0 * mean[i], epsilon = 1e-5);
        approx::assert_abs_diff_eq!(next, alone[18 + i], epsilon = 1e-6);
    }
}

/// Of a narrow posterior two antithetic draws leave less variance in the gradient than 16 independent
/// ones, about the same mean.
#[test]
fn two_antithetic_draws_do_what_sixteen_do() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let narrow = calm_nn::Posterior {
        log_std: target(&device).log_std - 2.0,
        ..target(&device)
    };
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let autodiff = device.clone().autodiff();
    let uniform = RandomStream::new(3).uniform(4 * 3 * 5);
    let repeats = 60;
    let spread = |m: usize, antithetic: bool| -> Result<(Vec<f64>, f64), FixtureError> {
        let mut head = reference(&f, &autodiff)?;
        let config = EnergyHeadConfig {
            posterior_samples: m,
            antithetic,
            blocks: 2,
            ..small()
        };
        head = config
            .init(&mut Init::new(0, &autodiff))
            .load_record(head.into_record());
        let own = if antithetic { m / 2 } else { m };
        let gradients: Vec<Vec<f64>> = (0..repeats)
            .map(|seed| {
                // The head's own noise is held; the posterior's numbers change.
                let normal = RandomStream::new(seed).normal(own * 18);
                let mut draws = Replay::new([uniform.clone(), normal]);
                let h = Tensor::from_inner(hidden.clone()).require_grad();
                let lifted = calm_nn::Posterior {
                    mean: Tensor::from_inner(narrow.mean.clone()),
                    log_std: Tensor::from_inner(narrow.log_std.clone()),
                };
                let loss = head.loss(h.clone(), &lifted, &mut draws).total;
                values(h.grad(&loss.backward()).expect("a gradient"))
            })
            .collect();
        let n = repeats as f64;
        let mean: Vec<f64> = (0..24)
            .map(|i| gradients.iter().map(|g| g[i]).sum::<f64>() / n)
            .collect();
        let scatter = gradients
            .iter()
            .flat_map(|g| g.iter().zip(&mean).map(|(x, m)| (x - m).powi(2)))
            .sum::<f64>();
        Ok((mean, scatter / (n - 1.0)))
    };
    let (mean, scatter) = spread(2, true)?;
    let (expected, of_sixteen) = spread(16, false)?;
    assert!(scatter < of_sixteen, "{scatter}, of sixteen {of_sixteen}");
    // Five standard errors of the two means' difference.
    let error = 5.0 * ((scatter + of_sixteen) / repeats as f64).sqrt();
    for (a, b) in mean.iter().zip(&expected) {
        approx::assert_abs_diff_eq!(*a, *b, epsilon = error);
    }
    Ok(())
}

#[test]
fn draws_of_the_target_are_mean_plus_scaled_noise() {
    let device = Device::flex();
    let target = target(&device);
    let eps = RandomStream::new(5).normal(2 * 18);
    let drawn = values(target.samples(2, &mut Replay::new([eps.clone()])));
    let (mean, log_std) = (values(target.mean), values(target.log_std));
    for (i, value) in drawn.iter().enumerate() {
        let expected = mean[i % 18] + log_std[i % 18].exp() * f64::from(eps[i]);
        approx::assert_abs_diff_eq!(*value, expected, epsilon = 1e-5);
    }
}

#[test]
fn sampling_gives_n_vectors_a_position() {
    let device = Device::flex();
    let mut config = small();
    config.samples = 2; // the number in the loss does not bind `sample`
    let head = config.init(&mut Init::new(1, &device));
    for n in [1, 9] {
        let drawn = head.sample(Tensor::zeros([3, 8], &device), n, &mut HostDraws::new(1));
        assert_eq!(drawn.dims(), [n, 3, 6]);
    }
}

/// Notes the smallest and the largest noise that the head's function would see.
struct Extremes;

impl Draws for Extremes {
    fn normal(&mut self, _: usize, _: &Device) -> Tensor<1> {
        panic!("the head's noise is uniform");
    }

    fn uniform(&mut self, n: usize, device: &Device) -> Tensor<1> {
        let values: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 0.0 } else { 1.0 }).collect();
        Tensor::from_floats(values.as_slice(), device)
    }
}

#[test]
fn noise_is_uniform_between_minus_a_half_and_a_half() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("energy_head")?;
    let head = reference(&f, &device)?;
    let hidden = f.tensor::<2>("inputs/hidden", &device)?;
    let drawn = head.sample(hidden.clone(), 2, &mut Extremes);
    let noise: Vec<f32> = (0..30)
        .map(|i| if i % 2 == 0 { -0.5 } else { 0.5 })
        .collect();
    let noise = Tensor::<1>::from_floats(noise.as_slice(), &device).reshape([2, 3, 5]);
    assert_eq!(values(drawn), values(head.forward(hidden, noise)));
    Ok(())
}

/// The last layer starts at zero: all samples coincide exactly, the loss is finite, and only that
/// layer learns in the first step. In the second, everything does.
#[test]
fn the_first_step_moves_only_the_last_layer() {
    let device = Device::flex().autodiff();
    let mut head = small().init(&mut Init::new(2, &device));
    let hidden = || tensor([3, 8], 6, &device).require_grad();
    let step = |head: &EnergyHead, hidden: &Tensor<2>| {
        let loss = head
            .loss(hidden.clone(), &target(&device), &mut HostDraws::new(3))
            .total;
        assert!(values(loss.clone())[0].is_finite());
        loss.backward()
    };
    let first = hidden();
    let gradients = step(&head, &first);
    let sizes = gradient_sizes(&head, &gradients);
    assert_eq!(sizes.len(), 2 * 4 + 2 * 11 + 2 + 4);
    for (path, size) in sizes {
        let size = size.unwrap_or(0.0);
        assert_eq!(size > 0.0, path.starts_with("final_out"), "{path}: {size}");
    }
    let of_hidden = first
        .grad(&gradients)
        .map_or(0.0, |g| g.abs().max().into_scalar::<f32>());
    assert_eq!(of_hidden, 0.0, "the backbone gets no gradient yet");

    let weight = head.final_out.weight.val();
    let moved = weight.clone() - Tensor::from_inner(weight.grad(&gradients).unwrap()) * 0.1;
    head.final_out.weight = burn::module::Param::from_tensor(moved.detach());
    let second = hidden();
    let gradients = step(&head, &second);
    for (path, size) in gradient_sizes(&head, &gradients) {
        assert!(
            size.is_some_and(|g| g > 0.0 && g.is_finite()),
            "{path}: {size:?}"
        );
    }
    let of_hidden = second.grad(&gradients).expect("a gradient").abs().max();
    assert!(of_hidden.into_scalar::<f32>() > 0.0);
}

/// At the start all samples coincide, where a power below 1 has an infinite slope.
#[test]
fn any_exponent_trains_from_coinciding_samples() {
    let device = Device::flex().autodiff();
    for alpha in [0.25, 0.5, 1.0, 1.5, 2.0] {
        let config = EnergyHeadConfig { alpha, ..small() };
        config.validate().expect("an exponent in the range");
        let head = config.init(&mut Init::new(2, &device));
        let hidden = tensor([3, 8], 6, &device).require_grad();
        // By key, and by numbers.
        let uniform = RandomStream::new(3).uniform(4 * 3 * 5);
        let normal = RandomStream::new(4).normal(7 * 3 * 6);
        let sources: [&mut dyn Draws; 2] =
            [&mut HostDraws::new(3), &mut Replay::new([uniform, normal])];
        for draws in sources {
            let loss = head.loss(hidden.clone(), &target(&device), draws).total;
            assert!(values(loss.clone())[0].is_finite());
            for (path, size) in gradient_sizes(&head, &loss.backward()) {
                let size = size.unwrap_or(0.0);
                assert!(size.is_finite(), "alpha {alpha}, {path}: {size}");
                assert!(size > 0.0 || !path.starts_with("final_out"), "{path}");
            }
        }
    }
}

#[test]
fn counted_parameters_and_work_are_those_of_the_module() {
    let base = small();
    let configs = [
        base.clone(),
        EnergyHeadConfig {
            blocks: 1,
            ..base.clone()
        },
        EnergyHeadConfig {
            hidden_size: 12,
            latent_size: 1,
            noise_size: 3,
            blocks: 5,
            ..base
        },
    ];
    for config in configs {
        let head = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!(config.parameters(), head.num_params() as u64, "{config:?}");
        let size = |layer: &Linear| layer.weight.val().dims().iter().product::<usize>();
        let shared = size(&head.hidden_in)
            + head
                .blocks
                .iter()
                .map(|b| size(&b.from_condition))
                .sum::<usize>();
        assert_eq!(config.shared_macs(), shared as u64);
        let own: usize = head
            .blocks
            .iter()
            .map(|b| size(&b.from_x) + size(&b.inner) + size(&b.gate_up) + size(&b.down))
            .sum();
        let ends = size(&head.noise_in) + size(&head.final_hidden) + size(&head.final_out);
        assert_eq!(config.forward_macs(0), (shared + own + ends) as u64);
    }
}

#[test]
fn sizes_and_exponents_outside_their_range_are_refused() {
    let refused = |change: &dyn Fn(&mut EnergyHeadConfig)| {
        let mut config = small();
        change(&mut config);
        config.validate().expect_err("a refusal")
    };
    let zero = |field| ConfigError::Zero { field };
    assert_eq!(refused(&|c| c.hidden_size = 0), zero("hidden_size"));
    assert_eq!(refused(&|c| c.latent_size = 0), zero("latent_size"));
    assert_eq!(refused(&|c| c.blocks = 0), zero("blocks"));
    assert_eq!(refused(&|c| c.noise_size = 0), zero("noise_size"));
    assert_eq!(
        refused(&|c| c.posterior_samples = 0),
        zero("posterior_samples")
    );
    for n in [0, 1] {
        let error = refused(&|c| c.samples = n);
        assert!(
            matches!(
                error,
                ConfigError::Range {
                    field: "samples",
                    ..
                }
            ),
            "{error}"
        );
    }
    for alpha in [0.0, 2.1, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(&|c| c.alpha = alpha);
        assert!(
            matches!(error, ConfigError::Range { field: "alpha", .. }),
            "{error}"
        );
    }
    assert_eq!(small().validate(), Ok(()));
}
