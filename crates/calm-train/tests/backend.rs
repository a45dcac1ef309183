//! The debug preset on another executor: the same losses as on flex, step by step, and a complete
//! run. Compiled with the executor's feature; CI runs it on Vulkan over Mesa's software driver.
#![cfg(any(feature = "vulkan", feature = "webgpu"))]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use calm_data::CacheDir;
use calm_lm::NamedDevice;
use calm_records::{MetricRow, RunDir, Summary, read_jsonl};
use calm_train::{Options, RunEnd, Stages, preset, train};

/// A text of sentences that differ, long enough for the debug preset.
fn text() -> String {
    const WORDS: [&str; 5] = ["river", "stone", "house", "morning", "song"];
    let mut text = String::new();
    for i in 0..1500u32 {
        let (a, b) = (WORDS[(i * i % 5) as usize], WORDS[(i / 7 % 5) as usize]);
        text.push_str(&format!(
            "The {a} of day {i} walks under the {b} and sings. "
        ));
        if i % 10 == 9 {
            text.push_str("\n\n");
        }
    }
    text
}

fn run(directory: &Path, device_name: &str) -> Vec<MetricRow> {
    let set = [format!(
        "data.corpus={}",
        directory.join("text.txt").display()
    )];
    let experiment = preset::resolve("debug", &set).unwrap();
    let device = NamedDevice::open(device_name).expect("the device; see README");
    let out = directory.join(device_name);
    let options = Options {
        out: out.clone(),
        stages: Stages::All,
        device: &device,
        others: &[],
        device_timeout: std::time::Duration::from_secs(60),
        cache: &CacheDir::at(directory.join("cache")),
        interrupt: &AtomicBool::new(false),
    };
    let end = train(experiment, Default::default(), &options, &mut |_| ()).unwrap();
    assert_eq!(end, RunEnd::Complete);
    let run = RunDir::open(&out).unwrap();
    assert!(Summary::load(&run.summary()).unwrap().calm.is_some());
    assert!(run.report().is_file());
    read_jsonl(&run.metrics()).unwrap()
}

#[test]
fn the_debug_preset_trains_as_on_flex() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("text.txt"), text()).unwrap();
    let flex = run(directory.path(), "flex");
    let begun = std::time::Instant::now();
    let other = run(directory.path(), "vulkan");
    eprintln!(
        "debug preset on vulkan: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(flex.len(), other.len());
    // Rounding differs and is carried on by the optimizer: the same curve, not the same bits.
    for (a, b) in flex.iter().zip(&other) {
        let off = (a.loss / b.loss - 1.0).abs();
        assert!(
            off < 0.02,
            "{} step {}: {} and {}",
            a.stage,
            a.step,
            a.loss,
            b.loss
        );
    }
    let (first, last) = (&other[0], other.last().unwrap());
    assert!(last.step == 60 && first.loss.is_finite());
}
