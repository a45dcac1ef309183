//! Runs with a local decoder, and with auxiliary heads.

use burn::tensor::{Device, Int, Tensor};
use calm_eval::heed;
use calm_likelihood_free::GenerativeHead;
use calm_lm::{Checkpoint, DecoderKind};
use calm_nn::{HostDraws, Init, chunk_tensor, mix};
use calm_records::{EvalPoint, MetricRow, RunDir, Stage, Summary, read_jsonl};
use calm_train::{Error, RunEnd, Stages, language_model_checkpoint};

use crate::{Place, logged};

fn local() -> Place {
    let mut place = Place::new();
    let model = &mut place.experiment.model;
    model.decoder = DecoderKind::Local;
    model.local.hidden_size = 16;
    model.local.intermediate_size = 24;
    model.local.vector_size = 16;
    place
}

#[test]
fn a_local_decoder_trains_without_an_autoencoder_and_has_a_perplexity() {
    let place = local();
    assert_eq!(
        place.train("whole", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    let run = RunDir::open(place.run("whole")).unwrap();
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics()).unwrap();
    assert!(rows.iter().all(|row| row.stage == Stage::Lm));
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history()).unwrap();
    assert!(points.iter().all(|point| point.cross_entropy.is_some()));
    let summary = Summary::load(&run.summary()).unwrap();
    assert!(summary.autoencoder.is_none());
    let calm = summary.calm.unwrap();
    // Six steps teach little: about what 280 equally likely tokens give.
    let perplexity = calm.perplexity.unwrap();
    assert!((100.0..600.0).contains(&perplexity), "{perplexity}");
    let model = &place.experiment.model;
    let per_token = model.language_model_train_flops(model.steps());
    let tokens = place.experiment.lm.total_tokens(model.window) as f64;
    approx::assert_relative_eq!(calm.train_flops, per_token * tokens, max_relative = 1e-12);
    assert_eq!(run.samples().read_dir().unwrap().count(), {
        let samples = &place.experiment.samples;
        samples.prompts.len() * samples.temperatures.len()
    });
}

#[test]
fn an_interrupted_run_with_a_local_decoder_repeats_its_losses() {
    let place = local();
    place.train("whole", Stages::All, None).unwrap();
    let stop = Some((Stage::Lm, 3));
    assert_eq!(
        place.train("parts", Stages::All, stop).unwrap(),
        RunEnd::Interrupted
    );
    assert_eq!(
        place.resume("parts", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("parts")), logged(&place.run("whole")));
    let summary = |name: &str| Summary::load(&RunDir::open(place.run(name)).unwrap().summary());
    assert_eq!(
        summary("whole").unwrap().calm,
        summary("parts").unwrap().calm
    );
}

#[test]
fn an_autoencoder_for_a_local_decoder_is_refused() {
    let mut place = local();
    let error = place.train("a", Stages::Autoencoder, None).unwrap_err();
    assert!(matches!(error, Error::LocalNeedsNoAutoencoder), "{error}");
    place.experiment.autoencoder_from = "runs/other".to_owned();
    let error = place.train("b", Stages::All, None).unwrap_err();
    assert!(matches!(error, Error::LocalNeedsNoAutoencoder), "{error}");
}

#[test]
fn auxiliary_heads_are_trained_resumed_and_left_behind() {
    let mut place = Place::new();
    place.experiment.model.aux_weight = 0.5;
    place.train("whole", Stages::All, None).unwrap();
    let run = RunDir::open(place.run("whole")).unwrap();
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics()).unwrap();
    for row in rows.iter().filter(|row| row.stage == Stage::Lm) {
        // The total is the energy score and the weighted cross-entropy.
        let energy = 2.0 * row.attraction.unwrap() - row.repulsion.unwrap();
        let sum = energy + 0.5 * row.auxiliary.unwrap();
        approx::assert_relative_eq!(sum, row.loss, max_relative = 1e-5);
    }
    let checkpoint: Checkpoint = language_model_checkpoint(&run).unwrap().checkpoint;
    let device = Device::flex();
    assert!(
        checkpoint
            .load_language_model(&device)
            .unwrap()
            .auxiliary
            .is_none()
    );
    let trained = checkpoint.load_trained_language_model(&device).unwrap();
    assert!(trained.auxiliary.is_some());

    place
        .train("parts", Stages::All, Some((Stage::Lm, 3)))
        .unwrap();
    place.resume("parts", Stages::All, None).unwrap();
    assert_eq!(logged(&place.run("parts")), logged(&place.run("whole")));
}

#[test]
fn evaluations_say_whether_the_head_heeds_its_condition() {
    let place = Place::new();
    place.train("run", Stages::All, None).unwrap();
    let run = RunDir::open(place.run("run")).unwrap();
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history()).unwrap();
    let points: Vec<_> = points.iter().filter(|p| p.stage == Stage::Lm).collect();
    assert!(!points.is_empty());
    for point in points {
        assert!(point.permuted_loss_ratio.is_some() && point.noiseless_token_accuracy.is_some());
    }
}

#[test]
fn the_permuted_loss_is_that_of_states_half_round() {
    let device = Device::flex();
    let mut config = Place::new().experiment.model;
    config.init_std = 0.5;
    let mut model = config.init(1, &device);
    let text: Vec<u32> = (0..config.window as u32).map(|i| i * 37 % 280).collect();
    // A head whose last layer is zero says the same whatever it is asked.
    let fresh = heed(&model, &[&text], 5, &device);
    assert_eq!(fresh.permuted_loss_ratio, 1.0);

    let init = &mut Init::new(2, &device).with_std(0.5);
    let width = config.backbone.hidden_size;
    *model.language_model.head.output_mut() = init.linear(width, config.latent_size);
    let found = heed(&model, &[&text], 5, &device);

    let (k, n) = (config.chunk_size, config.steps() - 1);
    let tokens = chunk_tensor(&text, 1, k, &device);
    let seen = tokens.clone().narrow(1, 0, n);
    let hidden = model
        .language_model
        .backbone
        .forward(seen)
        .squeeze_dim::<2>(0);
    let next = tokens.narrow(1, 1, n).squeeze_dim::<2>(0);
    let posterior = model.autoencoder.encode(next.clone());
    let loss = |order: Vec<i64>| -> f64 {
        let order = Tensor::<1, Int>::from_ints(order.as_slice(), &device);
        let states = hidden.clone().select(0, order);
        let mut draws = HostDraws::new(mix(5, 0));
        let head = &model.language_model.head;
        head.loss(states, &posterior, &mut draws)
            .total
            .into_scalar::<f32>()
            .into()
    };
    let n = n as i64;
    let ratio = loss((0..n).map(|i| (i + n / 2) % n).collect()) / loss((0..n).collect());
    approx::assert_relative_eq!(found.permuted_loss_ratio, ratio, max_relative = 1e-6);
    assert!((ratio - 1.0).abs() > 1e-4, "{ratio}");
}
