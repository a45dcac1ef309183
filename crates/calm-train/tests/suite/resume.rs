//! A resumed run is the uninterrupted run, bit for bit.

use std::io::Write;
use std::path::Path;

use calm_records::{RunDir, Stage, Summary};
use calm_train::{Event, RunEnd, Stages};

use crate::{Place, logged};

#[test]
fn interrupted_in_either_stage_the_losses_are_those_of_an_uninterrupted_run() {
    let place = Place::new();
    assert_eq!(
        place.train("whole", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    let whole = logged(&place.run("whole"));
    assert_eq!(whole.len(), 7 + 6);

    let stop = Some((Stage::Autoencoder, 3));
    assert_eq!(
        place.train("parts", Stages::All, stop).unwrap(),
        RunEnd::Interrupted
    );
    assert_eq!(
        logged(&place.run("parts")).len(),
        3,
        "the step in flight was finished and saved"
    );
    let stop = Some((Stage::Lm, 3));
    assert_eq!(
        place.resume("parts", Stages::All, stop).unwrap(),
        RunEnd::Interrupted
    );
    assert_eq!(
        place.resume("parts", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("parts")), whole);

    let summary = |name: &str| Summary::load(&RunDir::open(place.run(name)).unwrap().summary());
    let (a, b) = (summary("whole").unwrap(), summary("parts").unwrap());
    assert_eq!(a.calm, b.calm);
    assert_eq!(a.autoencoder, b.autoencoder);
    assert_eq!(a.tokens_seen, b.tokens_seen);
}

/// What kill -9 leaves: records beyond the newest checkpoint, a torn last line, a half-written
/// checkpoint beside the whole ones.
#[test]
fn after_a_crash_the_records_are_cut_back_and_the_losses_repeat() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    let whole = logged(&place.run("whole"));

    for (stage, step) in [(Stage::Autoencoder, 4), (Stage::Lm, 2)] {
        let name = format!("crash-{stage}");
        // Interrupted at a checkpoint's step, then made to look as if steps had followed it.
        place
            .train(&name, Stages::All, Some((stage, step)))
            .unwrap();
        let run = RunDir::open(place.run(&name)).unwrap();
        let mut metrics = std::fs::OpenOptions::new()
            .append(true)
            .open(run.metrics())
            .unwrap();
        let text = std::fs::read_to_string(run.metrics()).unwrap();
        let beyond = text.lines().last().unwrap().replace(
            &format!("\"step\":{step}"),
            &format!("\"step\":{}", step + 1),
        );
        write!(metrics, "{beyond}\n{{\"stage\":\"l").unwrap();
        let torn = run.checkpoints(stage).join(".writing-abc");
        std::fs::create_dir(&torn).unwrap();
        std::fs::write(torn.join("autoencoder.bpk"), "half").unwrap();

        assert_eq!(
            place.resume(&name, Stages::All, None).unwrap(),
            RunEnd::Complete
        );
        assert_eq!(logged(&place.run(&name)), whole, "{name}");
        assert!(!torn.exists(), "what the crash left is cleared away");
    }
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    place
        .train("early", Stages::All, Some((Stage::Autoencoder, 1)))
        .unwrap();
    std::fs::remove_dir_all(place.run("early").join("checkpoints")).unwrap();
    assert_eq!(
        place.resume("early", Stages::All, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("early")), logged(&place.run("whole")));
}

/// One flipped byte, a pointer to a directory that is gone, both at once: the run goes on from the
/// newest checkpoint that is whole, and its losses are those of an undisturbed run.
#[test]
fn damage_to_the_newest_checkpoint_costs_the_steps_since_the_one_before() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    let whole = logged(&place.run("whole"));
    let flip = |file: &Path| {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    };
    for (name, stage, file) in [
        ("weights", Stage::Lm, Some("language_model.bpk")),
        ("state", Stage::Lm, Some("state.json")),
        ("tokenizer", Stage::Lm, Some("tokenizer.json")),
        ("autoencoder", Stage::Autoencoder, Some("optim.bpk")),
        ("gone", Stage::Lm, None),
    ] {
        // Checkpoints at 2 and 4 of either stage, and one at 5 from the interruption.
        let stop = Some((stage, 5));
        place.train(name, Stages::All, stop).unwrap();
        let run = RunDir::open(place.run(name)).unwrap();
        let newest = run.checkpoint(stage, 5);
        match file {
            Some(file) => flip(&newest.join(file)),
            None => std::fs::remove_dir_all(&newest).unwrap(),
        }
        let mut passed_over = Vec::new();
        let end = place.resume_watched(name, Stages::All, &mut |event| {
            if let Event::PassedOver { error, taken } = event {
                passed_over.push((error.to_string(), taken.to_path_buf()));
            }
        });
        assert_eq!(end.unwrap(), RunEnd::Complete, "{name}");
        let [(error, taken)] = passed_over.as_slice() else {
            panic!("{name}: {passed_over:?}");
        };
        assert!(error.contains("step-000005"), "{name}: {error}");
        assert_eq!(*taken, run.checkpoint(stage, 4), "{name}");
        assert_eq!(logged(&run.root), whole, "{name}");
        assert!(
            !newest.exists(),
            "{name}: it is of a future that was cut off"
        );
    }
}

/// A trainer may be killed between a checkpoint and the line that names it.
#[test]
fn a_checkpoint_that_nothing_names_yet_is_gone_on_from() {
    let place = Place::new();
    place
        .train("run", Stages::All, Some((Stage::Lm, 5)))
        .unwrap();
    let run = RunDir::open(place.run("run")).unwrap();
    std::fs::write(run.latest(Stage::Lm), "step-000004\n").unwrap();
    let mut from = Vec::new();
    let end = place.resume_watched("run", Stages::All, &mut |event| match event {
        Event::StageStarted { from: step, .. } => from.push(*step),
        Event::PassedOver { error, .. } => panic!("{error}"),
        _ => {}
    });
    assert_eq!(end.unwrap(), RunEnd::Complete);
    assert_eq!(from, [5]);
}

/// The language model's checkpoint holds the autoencoder that it is trained on.
#[test]
fn damage_to_the_autoencoder_does_not_train_it_again_under_its_language_model() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    let whole = logged(&place.run("whole"));
    place
        .train("run", Stages::All, Some((Stage::Lm, 3)))
        .unwrap();
    let run = RunDir::open(place.run("run")).unwrap();
    let newest = std::fs::read_to_string(run.latest(Stage::Autoencoder)).unwrap();
    let newest = run.checkpoints(Stage::Autoencoder).join(newest.trim());
    std::fs::remove_file(newest.join("autoencoder.bpk")).unwrap();
    place.resume("run", Stages::All, None).unwrap();
    assert_eq!(logged(&run.root), whole);
}

#[test]
fn the_stages_can_be_run_one_by_one() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    assert_eq!(
        place.train("steps", Stages::Autoencoder, None).unwrap(),
        RunEnd::Complete
    );
    let run = RunDir::open(place.run("steps")).unwrap();
    let summary = Summary::load(&run.summary()).unwrap();
    assert!(summary.autoencoder.is_some() && summary.calm.is_none());
    assert!(run.report().is_file());
    assert_eq!(
        place.resume("steps", Stages::Lm, None).unwrap(),
        RunEnd::Complete
    );
    assert_eq!(logged(&place.run("steps")), logged(&place.run("whole")));
}

#[test]
fn a_complete_run_holds_every_file_of_the_format_and_the_newest_checkpoints() {
    let place = Place::new();
    place.train("whole", Stages::All, None).unwrap();
    let run = RunDir::open(place.run("whole")).unwrap();
    for path in [
        run.config(),
        run.run(),
        run.tokenizer(),
        run.metrics(),
        run.summary(),
        run.report(),
        run.eval_history(),
        run.latest(Stage::Lm),
    ] {
        assert!(path.is_file(), "{} is missing", path.display());
    }
    let mut kept: Vec<String> = std::fs::read_dir(run.checkpoints(Stage::Lm))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["latest", "step-000004", "step-000006"]);
    // The resolved configuration is itself loadable.
    let again = calm_train::preset::load(&run.config()).unwrap();
    assert!(again.model.vocab_size <= 280);
}
