//! Runs with a local decoder, and with auxiliary heads.

use burn::tensor::Device;
use calm_lm::{Checkpoint, DecoderKind};
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
fn what_heeds_its_condition_is_told_from_what_does_not() {
    let place = Place::new();
    place.train("run", Stages::All, None).unwrap();
    let run = RunDir::open(place.run("run")).unwrap();
    let points: Vec<EvalPoint> = read_jsonl(&run.eval_history()).unwrap();
    let points: Vec<_> = points.iter().filter(|p| p.stage == Stage::Lm).collect();
    assert!(!points.is_empty());
    for point in points {
        // Six steps teach nothing; the figures are there and in their range.
        let ratio = point.permuted_loss_ratio.unwrap();
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
        assert!((0.0..=1.0).contains(&point.noiseless_token_accuracy.unwrap()));
    }
}
