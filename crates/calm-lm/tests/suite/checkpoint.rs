//! The checkpoint directory: whole or not at all.

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use calm_backbone::Backbone;
use calm_data::{Split, Tokenizer};
use calm_lm::{CalmModel, Checkpoint, CheckpointWriter, Error, ModelConfig, WeightNumbers};

use crate::{config, tokens};

fn tokenizer(text: &str) -> Tokenizer {
    Tokenizer::train([text.repeat(20)].into_iter(), 270).unwrap()
}

fn split() -> Split {
    Split {
        salt: 3,
        ..Split::new(0.1, 0.2, 1 << 16)
    }
}

/// A model with room for the tokenizer's bytes and pairs.
fn of_text() -> (ModelConfig, CalmModel) {
    let config = ModelConfig {
        vocab_size: 300,
        ..config(2)
    };
    let model = config.init(7, &Device::flex());
    (config, model)
}

fn write(target: &Path) -> calm_lm::CalmModel {
    let (config, model) = of_text();
    let writer = CheckpointWriter::new(target, &config, &tokenizer("the cat sat on the mat "))
        .unwrap()
        .with_text(split(), "abc".to_owned());
    writer.write_autoencoder(model.autoencoder.clone()).unwrap();
    writer
        .write_language_model(model.language_model.clone())
        .unwrap();
    writer.write_json("state.json", &vec![1, 2, 3]).unwrap();
    writer.finish().unwrap();
    model
}

#[test]
fn what_is_written_is_read_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("step-000001");
    let model = write(&target);
    let checkpoint = Checkpoint::open(&target).unwrap();
    let device = Device::flex();
    let again = checkpoint.load(&device).unwrap();
    let hidden = |m: &calm_lm::CalmModel| -> Vec<u32> {
        let batch = calm_nn::chunk_tensor(&tokens(16, 1), 1, 2, &device);
        let h = m.language_model.backbone.forward(batch);
        h.into_data().iter::<f32>().map(f32::to_bits).collect()
    };
    assert_eq!(hidden(&model), hidden(&again));
    let posterior = |m: &calm_lm::CalmModel| -> Vec<f32> {
        let batch = calm_nn::chunk_tensor(&tokens(16, 1), 1, 2, &device).squeeze_dim::<2>(0);
        m.autoencoder
            .encode(batch)
            .log_std
            .into_data()
            .iter::<f32>()
            .collect()
    };
    assert_eq!(posterior(&model), posterior(&again));
    assert_eq!(
        checkpoint.read_json::<Vec<i32>>("state.json").unwrap(),
        [1, 2, 3]
    );
    assert_eq!(checkpoint.split(), Some(&split()));
    assert_eq!(checkpoint.text(), Some("abc"));
}

#[test]
fn truncated_changed_and_missing_files_are_told_apart_from_a_whole_checkpoint() {
    for name in [
        "autoencoder.bpk",
        "language_model.bpk",
        "config.json",
        "state.json",
    ] {
        for damage in ["truncate", "flip", "remove"] {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("c");
            write(&target);
            let path = target.join(name);
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "truncate" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                "flip" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
                _ => fs::remove_file(&path).unwrap(),
            }
            let error = Checkpoint::open(&target).unwrap_err();
            assert!(
                matches!(error, Error::DamagedCheckpoint { .. }),
                "{name} {damage}: {error}"
            );
            let message = error.to_string();
            assert!(
                message.contains(name) && !message.contains('\n'),
                "{message}"
            );
        }
    }
    // Every bit of the manifest, of which the split and the ends of texts are no file's.
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    write(&target);
    let path = target.join("manifest.json");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&target).unwrap_err();
        assert!(matches!(error, Error::DamagedCheckpoint { .. }), "{error}");
    }
    // One of before its sum was written is read as it was.
    fs::write(&path, &bytes).unwrap();
    Checkpoint::open(&target).unwrap();
    fs::remove_file(target.join("manifest.sha256")).unwrap();
    Checkpoint::open(&target).unwrap();
}

#[test]
fn another_tokenizer_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    write(&target);
    tokenizer("a wholly different text, with other pairs ")
        .save(&target.join("tokenizer.json"))
        .unwrap();
    let error = Checkpoint::open(&target).unwrap_err();
    assert!(matches!(error, Error::WrongTokenizer { .. }), "{error}");
}

#[test]
fn a_writer_that_does_not_finish_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    let (config, model) = of_text();
    let writer = CheckpointWriter::new(&target, &config, &tokenizer("some words ")).unwrap();
    writer.write_autoencoder(model.autoencoder.clone()).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_checkpoint_is_replaced_whole() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    write(&target);
    fs::write(target.join("stale"), "x").unwrap();
    write(&target);
    assert!(Checkpoint::open(&target).is_ok());
    assert!(!target.join("stale").exists());
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing beside it"
    );
}

#[test]
fn an_empty_directory_is_no_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::NoCheckpoint { .. }), "{error}");
}

#[test]
fn an_autoencoder_alone_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    let (config, model) = of_text();
    let writer = CheckpointWriter::new(&target, &config, &tokenizer("some words ")).unwrap();
    writer.write_autoencoder(model.autoencoder.clone()).unwrap();
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&target).unwrap();
    assert_eq!(checkpoint.split(), None, "nobody said");
    let device = Device::flex();
    assert!(checkpoint.load_autoencoder(&device).is_ok());
    let error = checkpoint.load(&device).unwrap_err().to_string();
    assert!(error.contains("language_model.bpk"), "{error}");
}

/// The tokenizer of a checkpoint may be missing, and then be given; never one that is too large.
#[test]
fn a_checkpoint_without_tokenizer_takes_a_fitting_one() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    let (config, model) = of_text();
    let writer = CheckpointWriter::new(&target, &config, None).unwrap();
    writer.write_autoencoder(model.autoencoder.clone()).unwrap();
    writer.finish().unwrap();
    let open = || Checkpoint::open(&target).unwrap();
    let error = open().tokenizer().unwrap_err().to_string();
    assert!(error.contains("--tokenizer"), "{error}");
    let given = open().with_tokenizer(tokenizer("some words ")).unwrap();
    assert_eq!(given.tokenizer().unwrap().vocab_size(), 300);

    let small = ModelConfig {
        vocab_size: 13,
        ..config
    };
    CheckpointWriter::new(&target, &small, None)
        .unwrap()
        .finish()
        .unwrap();
    let error = open().with_tokenizer(tokenizer("some words ")).unwrap_err();
    assert!(error.to_string().contains("another model's"), "{error}");
}

#[test]
fn weights_are_kept_in_what_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("c");
    let model = write(&target);
    let device = Device::flex();
    let load = |numbers| {
        let checkpoint = Checkpoint::open(&target).unwrap().with_weights(numbers);
        checkpoint.load(&device).unwrap().language_model.backbone
    };
    let rounded = load(WeightNumbers::Bf16);
    let matrix = |backbone: &Backbone| backbone.compressor.widen.weight.val();
    assert_eq!(matrix(&rounded).dtype(), DType::BF16);
    assert_eq!(
        rounded.compressor.embedding.weight.val().dtype(),
        DType::BF16
    );
    assert_eq!(rounded.compressor.norm.gamma.val().dtype(), DType::F32);
    for numbers in [
        WeightNumbers::F32,
        WeightNumbers::Stored,
        WeightNumbers::Verbatim,
    ] {
        let found: Vec<f32> = matrix(&load(numbers)).into_data().iter().collect();
        let expected = matrix(&model.language_model.backbone);
        assert_eq!(found, expected.into_data().iter().collect::<Vec<f32>>());
    }
    // Every entry is the nearest bf16, and everything computed is f32 of nearly the same size.
    let near: Vec<f32> = matrix(&rounded).into_data().iter().collect();
    let exact = matrix(&model.language_model.backbone).into_data();
    for (near, exact) in near.iter().zip(exact.iter::<f32>()) {
        assert!(
            (near - exact).abs() <= exact.abs() / 256.0,
            "{near}, {exact}"
        );
    }
    let hidden = |backbone: &Backbone| {
        let batch = calm_nn::chunk_tensor(&tokens(16, 1), 1, 2, &device);
        backbone.forward(batch)
    };
    let (near, exact) = (hidden(&rounded), hidden(&model.language_model.backbone));
    assert_eq!(near.dtype(), DType::F32);
    let apart = (near - exact.clone()).abs().max().into_scalar::<f32>();
    assert!(apart > 0.0 && apart < 0.05, "{apart}");

    // 8 bits: a scale for each block, and nothing else of the model.
    let short = load(WeightNumbers::Int8);
    let embedding = |backbone: &Backbone| backbone.compressor.embedding.weight.val();
    for weight in [matrix(&short), embedding(&short)] {
        assert!(
            matches!(weight.dtype(), DType::QFloat(_)),
            "{:?}",
            weight.dtype()
        );
    }
    assert_eq!(short.compressor.norm.gamma.val().dtype(), DType::F32);
    for weight in [matrix, embedding] {
        let exact = weight(&model.language_model.backbone);
        let largest = exact.clone().abs().max().into_scalar::<f32>();
        let off = (weight(&short).dequantize() - exact).abs().max();
        let off = off.into_scalar::<f32>();
        assert!(
            off > 0.0 && off <= 0.51 / 127.0 * largest,
            "{off} of {largest}"
        );
    }
    let apart = (hidden(&short) - exact).abs().max().into_scalar::<f32>();
    assert!(apart > 0.0 && apart < 0.05, "{apart}");
}
