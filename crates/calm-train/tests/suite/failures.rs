//! What goes wrong says so in one line and leaves nothing half done.

use calm_records::{RunDir, Stage};
use calm_train::{Error, Stages};

use crate::{Place, logged};

fn one_line(error: &Error) -> String {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_loss_that_is_not_finite_names_step_cursor_and_checkpoint() {
    let mut place = Place::new();
    place.experiment.optim.autoencoder_lr = 1e30;
    place.experiment.autoencoder.warmup_steps = 0;
    place.experiment.autoencoder.decay_steps = 0;
    place.experiment.autoencoder.checkpoint_every = 1;
    let error = place.train("run", Stages::All, None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotFinite {
                stage: Stage::Autoencoder,
                ..
            }
        ),
        "{error}"
    );
    let message = one_line(&error);
    assert!(
        message.contains("position") && message.contains("step-000001"),
        "{message}"
    );
    assert!(
        logged(&place.run("run"))
            .iter()
            .all(|row| f64::from_bits(row.2[0]).is_finite())
    );
}

#[test]
fn a_directory_with_a_run_is_not_overwritten() {
    let place = Place::new();
    place
        .train("run", Stages::Autoencoder, Some((Stage::Autoencoder, 2)))
        .unwrap();
    let before = logged(&place.run("run"));
    let message = one_line(&place.train("run", Stages::All, None).unwrap_err());
    assert!(message.contains("resume"), "{message}");
    assert_eq!(logged(&place.run("run")), before);
}

#[test]
fn resuming_needs_a_run_and_the_lm_stage_an_autoencoder() {
    let place = Place::new();
    one_line(&place.resume("nothing", Stages::All, None).unwrap_err());
    assert!(!place.run("nothing").exists());
    let error = place.train("lm", Stages::Lm, None).unwrap_err();
    assert!(matches!(error, Error::NoAutoencoder { .. }), "{error}");
    assert!(!place.run("lm").exists());
    place
        .train("half", Stages::Autoencoder, Some((Stage::Autoencoder, 2)))
        .unwrap();
    let error = place.resume("half", Stages::Lm, None).unwrap_err();
    assert!(matches!(error, Error::NoAutoencoder { .. }), "{error}");
}

#[test]
fn a_text_that_changed_is_not_resumed_on() {
    let place = Place::new();
    place
        .train("run", Stages::All, Some((Stage::Lm, 2)))
        .unwrap();
    let corpus = &place.experiment.data.corpus[0];
    let text = std::fs::read_to_string(corpus).unwrap();
    std::fs::write(
        corpus,
        text + "\n\nOne more paragraph, and the streams are others.\n",
    )
    .unwrap();
    let error = place.resume("run", Stages::All, None).unwrap_err();
    assert!(matches!(error, Error::TextChanged { .. }), "{error}");
    one_line(&error);
}

#[test]
fn a_prompt_longer_than_the_window_does_not_wait_for_the_end_of_the_run() {
    let mut place = Place::new();
    place.experiment.samples.prompts = vec!["river stone ".repeat(40)];
    let error = place.train("run", Stages::All, None).unwrap_err();
    assert!(
        matches!(error, Error::PromptTooLong { window: 16, .. }),
        "{error}"
    );
    assert!(!place.run("run").exists());
}

#[test]
fn the_autoencoder_stage_does_not_erase_a_language_model() {
    let place = Place::new();
    place.train("run", Stages::All, None).unwrap();
    let summary = place.run("run").join("summary.json");
    let before = std::fs::read(&summary).unwrap();
    let error = place.resume("run", Stages::Autoencoder, None).unwrap_err();
    assert!(matches!(error, Error::HasLanguageModel { .. }), "{error}");
    assert_eq!(std::fs::read(&summary).unwrap(), before);
}

#[test]
fn a_stage_without_a_valid_checkpoint_is_named_and_left_as_it_is() {
    let place = Place::new();
    place
        .train("run", Stages::All, Some((Stage::Lm, 2)))
        .unwrap();
    let file = place
        .run("run")
        .join("checkpoints/lm/step-000002/optim.bpk");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let before = logged(&place.run("run"));
    let error = place.resume("run", Stages::All, None).unwrap_err();
    assert!(matches!(error, Error::NoValidCheckpoint { .. }), "{error}");
    let message = one_line(&error);
    assert!(
        message.contains("step-000002") && message.contains("optim.bpk"),
        "{message}"
    );
    assert_eq!(logged(&place.run("run")), before);
}

/// A job that was started twice: the second writes nothing and says who is there.
#[test]
fn a_second_trainer_in_the_directory_leaves() {
    let place = Place::new();
    place
        .train("run", Stages::All, Some((Stage::Lm, 2)))
        .unwrap();
    let lock = RunDir::open(place.run("run")).unwrap().lock();
    let held = std::fs::File::options().write(true).open(lock).unwrap();
    held.try_lock()
        .expect("a trainer that has ended holds it no more");
    let before = logged(&place.run("run"));
    let error = place.resume("run", Stages::All, None).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let message = one_line(&error);
    let id = format!("process {}, since 20", std::process::id());
    assert!(message.contains(&id), "{message}");
    assert_eq!(logged(&place.run("run")), before);
    drop(held);
    place.resume("run", Stages::All, None).unwrap();
}

#[test]
fn another_tokenizer_in_the_run_is_refused() {
    let place = Place::new();
    place
        .train("run", Stages::All, Some((Stage::Lm, 2)))
        .unwrap();
    let texts = ["quite another text with other words in it ".repeat(30)];
    let other = calm_data::Tokenizer::train(texts.into_iter(), 280).unwrap();
    other
        .save(&place.run("run").join("tokenizer.json"))
        .unwrap();
    let message = one_line(&place.resume("run", Stages::All, None).unwrap_err());
    assert!(message.contains("tokenizer"), "{message}");
}

#[test]
fn a_tokenizer_of_another_size_is_refused_before_anything_is_written() {
    let mut place = Place::new();
    let texts = ["quite another text with other words in it ".repeat(30)];
    let other = calm_data::Tokenizer::train(texts.into_iter(), 262).unwrap();
    let path = place.run("other.json");
    other.save(&path).unwrap();
    place.experiment.data.tokenizer = path.display().to_string();
    let error = place.train("run", Stages::All, None).unwrap_err();
    assert!(
        matches!(error, Error::VocabularyMismatch { expected: 280, .. }),
        "{error}"
    );
    assert!(!place.run("run").exists());
}

#[test]
fn too_little_text_leaves_no_run_behind() {
    let mut place = Place::new();
    place.experiment.model.window = 1 << 20;
    let message = one_line(&place.train("run", Stages::All, None).unwrap_err());
    assert!(message.contains("1048576"), "{message}");
    assert!(!place.run("run").exists());
}
