//! A short run of all stages, by the trainer itself.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use calm_data::CacheDir;
use calm_kernels::can_checkpoint;
use calm_lm::NamedDevice;
use calm_records::{MetricRow, RunDir, Stage, read_jsonl};
use calm_train::{DEVICE_TIMEOUT, Event, Options, RunEnd, Stages, preset};

use crate::{Error, Outputs};

/// Sentences that differ, long enough for preset `debug`.
fn text() -> String {
    const WORDS: [&str; 5] = ["river", "stone", "house", "morning", "song"];
    let mut text = String::new();
    for i in 0..1500u32 {
        let (a, b) = (WORDS[(i * i % 5) as usize], WORDS[(i / 7 % 5) as usize]);
        let _ = write!(text, "The {a} of day {i} walks under the {b} and sings. ");
        if i % 10 == 9 {
            text.push_str("\n\n");
        }
    }
    text
}

/// The losses of every stage; with `moves_after`, the language model's first steps are the CPU's.
pub(crate) fn run(
    set: &[String],
    baseline: bool,
    moves_after: Option<u64>,
    device: &NamedDevice,
) -> Result<Outputs, Error> {
    let place = tempfile::tempdir().map_err(Error::Place)?;
    let corpus = place.path().join("text.txt");
    std::fs::write(&corpus, text()).map_err(Error::Place)?;
    let mut all = vec![
        format!("data.corpus={}", corpus.display()),
        "samples.prompts=[]".to_owned(),
    ];
    for stage in ["autoencoder", "lm", "baseline.training"] {
        all.push(format!("{stage}.log_every=1"));
    }
    all.extend(set.iter().cloned());
    let mut experiment = preset::resolve("debug", &all)?;
    // What a device lacks and says so is no difference: there the same case trains without.
    experiment.gradient_checkpointing &= can_checkpoint(&device.device);
    let out = place.path().join("run");
    let (flex, interrupt) = (NamedDevice::open("flex")?, AtomicBool::new(false));
    let mut options = Options {
        out: out.clone(),
        stages: Stages::All,
        device: if moves_after.is_some() { &flex } else { device },
        others: &[],
        device_timeout: DEVICE_TIMEOUT,
        all_reduce: false,
        cache: &CacheDir::at(place.path().join("cache")),
        interrupt: &interrupt,
    };
    let mut observe = |event: Event<'_>| {
        if let Event::Stepped { stage, step, .. } = event
            && stage == Stage::Lm
            && Some(step) == moves_after
        {
            interrupt.store(true, Ordering::SeqCst);
        }
    };
    let end = calm_train::train(experiment, Default::default(), &options, &mut observe)?;
    if moves_after.is_some() && end == RunEnd::Complete {
        return Err(Error::NeverMoves);
    }
    if end == RunEnd::Interrupted {
        interrupt.store(false, Ordering::SeqCst);
        options.device = device;
        calm_train::resume(&options, &mut |_| ())?;
    }
    if baseline {
        options.stages = Stages::Baseline;
        calm_train::resume(&options, &mut |_| ())?;
    }
    let run = RunDir::open(&out).map_err(calm_train::Error::from)?;
    let rows: Vec<MetricRow> = read_jsonl(&run.metrics()).map_err(calm_train::Error::from)?;
    let mut outputs = Outputs::default();
    for stage in [Stage::Autoencoder, Stage::Lm, Stage::Baseline] {
        let of_stage = rows.iter().filter(|row| row.stage == stage);
        let losses: Vec<f32> = of_stage.map(|row| row.loss as f32).collect();
        if !losses.is_empty() {
            outputs.add(format!("losses of {}", stage.name()), losses);
        }
    }
    Ok(outputs)
}
