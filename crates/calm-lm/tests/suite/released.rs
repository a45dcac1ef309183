//! Released checkpoints: import, trace and export against a PyTorch reference (fixtures/released).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use calm_autoencoder::AutoencoderConfig;
use calm_lm::{
    AnyModel, AutoencoderCheckpoint, BaselineCheckpoint, Checkpoint, HeadKind, Kind, Solver,
    TokenIds, TraceInputs, WeightNumbers, checkpoint_kind, trace,
};
use calm_weights::{TensorFiles, TensorToWrite, write_safetensors};

/// The cases, and of each whether an autoencoder lies beside it.
const CASES: [&str; 12] = [
    "autoencoder-k1",
    "autoencoder-k2",
    "autoencoder-k4",
    "energy-k1",
    "energy-k2",
    "energy-k4",
    "energy-k8",
    "flow-k4",
    "diffusion-k4",
    "token-tied",
    "token-tied-bin",
    "token-untied",
];

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/released")
        .join(name)
}

fn import(directory: &Path) -> calm_lm::Result<AnyModel> {
    let beside = directory.join("autoencoder");
    let beside = beside.is_dir().then_some(beside);
    AnyModel::import(directory, beside.as_deref(), &Device::flex())
}

fn of_case(name: &str) -> AnyModel {
    import(&case(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

type Outputs = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn traced(model: &AnyModel, inputs: &Path, solver: Option<Solver>) -> Outputs {
    let (files, device) = (TensorFiles::open(inputs).unwrap(), Device::flex());
    let inputs = TraceInputs::new(&files, &device);
    let outputs = trace(model, &inputs, solver).unwrap();
    assert_eq!(inputs.unused(), Vec::<String>::new());
    written(outputs)
}

/// As they are read back from a file.
fn written(outputs: Vec<TensorToWrite>) -> Outputs {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outputs.safetensors");
    write_safetensors(&path, &[], outputs).unwrap();
    read(&path)
}

fn read(path: &Path) -> Outputs {
    let files = TensorFiles::open(path).unwrap();
    let tensors = files.iter().map(|(name, tensor)| {
        let values = (tensor.shape().to_vec(), tensor.floats().unwrap());
        (name.to_owned(), values)
    });
    tensors.collect()
}

/// 1e-4 relative and 1e-5 absolute; of what an unclipped diffusion sampler makes, relative to the
/// largest entry of each vector, since it amplifies rounding.
fn compare(case: &str, found: &Outputs, expected: &Outputs) {
    for (name, (shape, expected)) in expected {
        let (found_shape, found) = &found[name];
        assert_eq!(found_shape, shape, "{case}: {name}");
        let by_vector = case.starts_with("diffusion") && name == "head.samples";
        let width = if by_vector { *shape.last().unwrap() } else { 1 };
        for (i, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
            let size = expected.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-4 * size + 1e-5,
                    "{case}: {name}, {i} is {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn what_is_imported_computes_what_the_reference_computes() {
    for name in CASES {
        let (directory, model) = (case(name), of_case(name).with_weights(WeightNumbers::F32));
        for (suffix, solver) in [("", None), ("_head", None), ("_euler", Some(Solver::Euler))] {
            let outputs = directory.join(format!("outputs{suffix}.safetensors"));
            if !outputs.is_file() {
                assert!(!suffix.is_empty(), "{name}");
                continue;
            }
            let own = directory.join(format!("inputs{suffix}.safetensors"));
            let inputs = match own.is_file() {
                true => own,
                false => directory.join("inputs.safetensors"),
            };
            let (found, expected) = (traced(&model, &inputs, solver), read(&outputs));
            compare(name, &found, &expected);
            if solver.is_none() {
                let names = |outputs: &Outputs| outputs.keys().cloned().collect::<BTreeSet<_>>();
                assert_eq!(names(&found), names(&expected), "{name}");
            }
        }
    }
}

#[test]
fn heads_sizes_and_ties_are_told_by_the_tensors() {
    let calm = |name: &str| match of_case(name) {
        AnyModel::Calm(config, _) => config,
        other => panic!("{name}: {other:?}"),
    };
    let kinds = ["energy-k4", "flow-k4", "diffusion-k4"].map(|name| calm(name).head.kind);
    assert_eq!(
        kinds,
        [HeadKind::Energy, HeadKind::Flow, HeadKind::Diffusion]
    );
    assert_eq!(calm("energy-k2").backbone.kv_heads, 1);
    assert_eq!(calm("energy-k2").head.alpha, 1.5);
    assert_eq!(calm("energy-k8").chunk_size, 8);
    for (name, tied) in [
        ("token-tied", true),
        ("token-tied-bin", true),
        ("token-untied", false),
    ] {
        let AnyModel::TokenModel(config, model) = of_case(name) else {
            panic!("{name}");
        };
        assert_eq!(
            (config.tied_embeddings, model.output.is_none()),
            (tied, tied),
            "{name}"
        );
    }
}

/// Reads the checkpoint in a directory, its weights as they are stored or as f32.
fn open(directory: &Path, numbers: WeightNumbers) -> AnyModel {
    let device = &Device::flex();
    match checkpoint_kind(directory).unwrap() {
        Kind::Autoencoder => {
            let c = AutoencoderCheckpoint::open(directory)
                .unwrap()
                .with_weights(numbers);
            AnyModel::Autoencoder(c.config().clone(), c.load(device).unwrap())
        }
        Kind::Calm => {
            let c = Checkpoint::open(directory).unwrap().with_weights(numbers);
            AnyModel::Calm(c.config().clone(), c.load(device).unwrap())
        }
        Kind::TokenModel => {
            let c = BaselineCheckpoint::open(directory)
                .unwrap()
                .with_weights(numbers);
            AnyModel::TokenModel(c.config().clone(), c.load(device).unwrap())
        }
    }
}

fn bytes(directory: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let files = TensorFiles::open(directory).unwrap();
    let tensors = files.iter().map(|(name, tensor)| {
        let (dtype, shape) = (tensor.dtype().to_string(), tensor.shape().to_vec());
        (name.to_owned(), (dtype, shape, tensor.bytes().unwrap()))
    });
    tensors.collect()
}

/// Every name that the released form has of a tensor of this name.
fn all_names(name: &str) -> Vec<String> {
    let swapped = |from: &str, to: &str| name.replacen(from, to, 1);
    let mut names = vec![name.to_owned()];
    if name.starts_with("mlp_generator.") {
        names.push(swapped("mlp_generator", "generative_head"));
    }
    if name.starts_with("generative_head.") && !name.contains(".net.") {
        names.push(swapped("generative_head", "mlp_generator"));
    }
    if name.ends_with("encoder.embed_tokens.weight") {
        names.push(swapped(
            "encoder.embed_tokens.weight",
            "decoder.lm_head_weight",
        ));
    }
    names
}

/// Byte by byte, through a checkpoint directory of ours and through the released form; of bf16 too.
#[test]
fn import_export_import_is_the_identity() {
    for name in CASES {
        let (model, place) = (of_case(name), tempfile::tempdir().unwrap());
        let written = of_case(name).writer(&place.path().join("checkpoint"), None);
        written.unwrap().finish().unwrap();
        let at = |name: &str| place.path().join(name);
        let stored = open(&at("checkpoint"), WeightNumbers::Verbatim);
        stored
            .export(None, TokenIds::default(), &at("exported"))
            .unwrap();
        let again = AnyModel::import(&at("exported"), None, &Device::flex()).unwrap();
        again
            .export(None, TokenIds::default(), &at("again"))
            .unwrap();

        let (source, exported) = (bytes(&case(name)), bytes(&at("exported")));
        assert_eq!(exported, bytes(&at("again")), "{name}");
        for (tensor, stored) in &source {
            for name in all_names(tensor) {
                assert_eq!(Some(stored), exported.get(&name), "{name}");
            }
        }
        // Nothing that was not there, but the autoencoder that lay beside.
        let known: BTreeSet<_> = source.keys().flat_map(|name| all_names(name)).collect();
        let tied = matches!(&model, AnyModel::TokenModel(config, _) if config.tied_embeddings);
        let more = exported.keys().filter(|&name| {
            !(known.contains(name)
                || name.starts_with("ae_model.")
                || tied && name == "lm_head.weight")
        });
        assert_eq!(more.count(), 0, "{name}: {:?}", exported.keys());
        if matches!(model, AnyModel::Calm(..)) {
            let beside = AnyModel::import(&at("exported/autoencoder"), None, &Device::flex());
            assert!(matches!(beside, Ok(AnyModel::Autoencoder(..))), "{name}");
        }

        let inputs = case(name).join("inputs.safetensors");
        let expected = traced(&model.with_weights(WeightNumbers::F32), &inputs, None);
        let f32 = open(&at("checkpoint"), WeightNumbers::F32);
        compare(name, &traced(&f32, &inputs, None), &expected);
        // Weights that are kept in bf16 are the same numbers.
        let stored = open(&at("checkpoint"), WeightNumbers::Stored);
        compare(name, &traced(&stored, &inputs, None), &expected);
    }
}

/// A copy of a case with one thing changed.
fn changed(name: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            match path.is_dir() {
                true => copy(&path, &to),
                false => _ = fs::copy(&path, to).unwrap(),
            }
        }
    }
    let place = tempfile::tempdir().unwrap();
    copy(&case(name), place.path());
    change(place.path());
    place
}

/// Tensors of a safetensors file, through a function that may leave some out, rename or reshape them.
fn rewrite(path: &Path, change: impl Fn(&str, Vec<usize>) -> Vec<(String, Vec<usize>)>) {
    let files = TensorFiles::open(path).unwrap();
    let mut tensors = Vec::new();
    for (name, tensor) in files.iter() {
        for (name, shape) in change(name, tensor.shape().to_vec()) {
            let count = shape.iter().product();
            let mut values = tensor.floats().unwrap();
            values.resize(count, 0.0);
            tensors.push(TensorToWrite::floats(name, shape, values));
        }
    }
    write_safetensors(path, &[("format", "pt")], tensors).unwrap();
}

fn edit_config(directory: &Path, key: &str, value: serde_json::Value) {
    let path = directory.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// The message of importing a case after a change; the message is one line.
fn refused(name: &str, change: impl FnOnce(&Path)) -> String {
    let place = changed(name, change);
    let message = import(place.path()).expect_err(name).to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn tensors_are_all_accounted_for() {
    let weights = "model.safetensors";
    let missing = refused("flow-k4", |d| {
        rewrite(&d.join(weights), |name, shape| match name {
            "transformer.layers.0.mlp.up_proj.weight" => vec![],
            _ => vec![(name.to_owned(), shape)],
        });
    });
    assert!(
        missing.contains("missing: transformer.layers.0.mlp.up_proj.weight"),
        "{missing}"
    );

    let unexpected = refused("flow-k4", |d| {
        rewrite(&d.join(weights), |name, shape| match name {
            "transformer.norm.weight" => {
                let twice = (format!("{name}.more"), shape.clone());
                vec![(name.to_owned(), shape), twice]
            }
            _ => vec![(name.to_owned(), shape)],
        });
    });
    assert!(
        unexpected.contains("unexpected: transformer.norm.weight.more"),
        "{unexpected}"
    );

    let reshaped = refused("flow-k4", |d| {
        rewrite(&d.join(weights), |name, mut shape| {
            if name == "embed_proj.2.weight" {
                shape[1] += 1;
            }
            vec![(name.to_owned(), shape)]
        });
    });
    assert!(
        reshaped.contains("another shape: embed_proj.2.weight"),
        "{reshaped}"
    );

    // Of an empty tensor the other extent may be anything, in a file of any size.
    let empty = refused("autoencoder-k2", |d| {
        rewrite(&d.join(weights), |name, shape| match name {
            "encoder.squeeze_layer.weight" => vec![(name.to_owned(), vec![0, 1 << 40])],
            _ => vec![(name.to_owned(), shape)],
        });
        edit_config(d, "patch_size", serde_json::Value::Null);
    });
    assert!(empty.contains("is empty"), "{empty}");

    // What a terminal would obey is not printed.
    let odd = refused("flow-k4", |d| {
        rewrite(&d.join(weights), |name, shape| match name {
            "transformer.norm.weight" => vec![("a\n\u{1b}[2Jb".to_owned(), shape)],
            _ => vec![(name.to_owned(), shape)],
        });
    });
    assert!(odd.contains("unexpected: a  [2Jb"), "{odd}");

    let gap = refused("autoencoder-k2", |d| {
        rewrite(&d.join(weights), |name, shape| {
            vec![(name.replace("encoder_layers.1", "encoder_layers.5"), shape)]
        });
    });
    assert!(gap.contains("num_encoder_layers"), "{gap}");
}

#[test]
fn contradictions_are_refused_with_the_reason() {
    for (case, key, value, part) in [
        (
            "energy-k4",
            "patch_size",
            2.into(),
            "patch_size = 2, but by the weights it is 4",
        ),
        ("energy-k4", "latent_size", 7.into(), "latent_size = 7"),
        (
            "energy-k1",
            "num_hidden_layers",
            9.into(),
            "num_hidden_layers = 9",
        ),
        (
            "energy-k1",
            "num_key_value_heads",
            12.into(),
            "num_key_value_heads = 12",
        ),
        (
            "energy-k1",
            "num_attention_heads",
            5.into(),
            "num_attention_heads",
        ),
        (
            "energy-k1",
            "num_attention_heads",
            0.into(),
            "num_attention_heads",
        ),
        (
            "energy-k1",
            "num_attention_heads",
            serde_json::Value::Null,
            "num_attention_heads is missing",
        ),
        (
            "token-tied",
            "vocab_size",
            128256.into(),
            "vocab_size = 128256",
        ),
        ("token-tied", "hidden_act", "gelu".into(), "gelu"),
        (
            "token-tied",
            "attention_bias",
            true.into(),
            "attention_bias",
        ),
        (
            "token-tied",
            "rope_scaling",
            serde_json::json!({"type": "linear", "factor": 2.0}),
            "rope_scaling",
        ),
        ("token-tied", "head_dim", 64.into(), "head_dim"),
        (
            "token-tied",
            "rope_parameters",
            serde_json::json!({"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}),
            "rope_parameters",
        ),
        (
            "token-tied",
            "rope_parameters",
            serde_json::json!({"rope_theta": 5e5, "rope_type": "default"}),
            "rope_theta is 10000, and 500000",
        ),
        ("token-tied", "model_type", "granite".into(), "granite"),
        (
            "token-tied",
            "max_position_embeddings",
            (1u64 << 62).into(),
            "more than any model",
        ),
        // Found by fuzzing: Burn's norm panics at 0.
        ("token-tied", "rms_norm_eps", 0.0.into(), "norm_eps"),
        ("autoencoder-k4", "rms_norm_eps", 0.0.into(), "norm_eps"),
        ("token-tied", "rope_theta", (-1.0).into(), "rope_theta"),
        ("energy-k4", "beta", 3.0.into(), "alpha"),
        ("energy-k4", "num_samples", 1.into(), "samples"),
        ("token-tied", "max_position_embeddings", 0.into(), "window"),
        (
            "autoencoder-k4",
            "num_encoder_layers",
            "two".into(),
            "config.json",
        ),
    ] {
        let message = refused(case, |d| edit_config(d, key, value));
        assert!(message.contains(part), "{case}, {key}: {message}");
    }
    // Where it is not stated, it is what the weights say.
    for (case, key) in [
        ("energy-k2", "num_key_value_heads"),
        ("energy-k2", "num_mlp_layers"),
    ] {
        let place = changed(case, |d| edit_config(d, key, serde_json::Value::Null));
        assert!(import(place.path()).is_ok(), "{case} without {key}");
    }

    let message = refused("energy-k1", |d| {
        fs::remove_dir_all(d.join("autoencoder")).unwrap()
    });
    assert!(message.contains("--autoencoder"), "{message}");
    let message = refused("energy-k4", |d| {
        fs::remove_file(d.join("config.json")).unwrap()
    });
    assert!(message.contains("config.json"), "{message}");
    let other = AnyModel::import(
        &case("energy-k1"),
        Some(&case("autoencoder-k4")),
        &Device::flex(),
    );
    let message = other.unwrap_err().to_string();
    assert!(message.contains("don't belong together"), "{message}");
    let none = AnyModel::import(
        &case("energy-k1"),
        Some(&case("token-tied")),
        &Device::flex(),
    );
    assert!(none.unwrap_err().to_string().contains("no autoencoder"));
    let needless = AnyModel::import(
        &case("token-tied"),
        Some(&case("autoencoder-k4")),
        &Device::flex(),
    );
    assert!(
        needless
            .unwrap_err()
            .to_string()
            .contains("needs no autoencoder")
    );

    // A table that should be tied and is not.
    let untied = refused("autoencoder-k4", |d| {
        let files = TensorFiles::open(d).unwrap();
        let tensors = files.iter().map(|(name, tensor)| {
            let mut values = tensor.floats().unwrap();
            if name == "decoder.lm_head_weight" {
                values[3] += 1.0;
            }
            TensorToWrite::floats(name, tensor.shape().to_vec(), values)
        });
        write_safetensors(&d.join("model.safetensors"), &[], tensors.collect()).unwrap();
    });
    assert!(untied.contains("decoder.lm_head_weight"), "{untied}");
    let odd = refused("autoencoder-k2", |d| {
        edit_config(d, "num_encoder_layers", 1.into());
        rewrite(&d.join("model.safetensors"), |name, shape| {
            match name.contains("encoder_layers.1.") && name.starts_with("encoder") {
                true => vec![],
                false => vec![(name.to_owned(), shape)],
            }
        });
    });
    assert!(odd.contains("encoder_layers"), "{odd}");
}

/// Of a tied table a file may hold the one name or the other.
#[test]
fn a_tie_is_restored_from_either_name() {
    for (case, name, other) in [
        (
            "autoencoder-k4",
            "encoder.embed_tokens.weight",
            "decoder.lm_head_weight",
        ),
        ("token-tied", "model.embed_tokens.weight", "lm_head.weight"),
    ] {
        let place = changed(case, |d| {
            rewrite(&d.join("model.safetensors"), |tensor, shape| match tensor {
                _ if tensor == other => vec![],
                _ if tensor == name => vec![(other.to_owned(), shape)],
                _ => vec![(tensor.to_owned(), shape)],
            });
        });
        let inputs = self::case(case).join("inputs.safetensors");
        let traced_of =
            |model: AnyModel| traced(&model.with_weights(WeightNumbers::F32), &inputs, None);
        let found = traced_of(import(place.path()).unwrap());
        compare(case, &found, &traced_of(of_case(case)));
    }
}

/// As newer versions of transformers write it.
#[test]
fn the_rotary_base_may_stand_in_another_place() {
    let place = changed("token-untied", |d| {
        edit_config(d, "rope_theta", serde_json::Value::Null);
        let newer = serde_json::json!({"rope_theta": 5e5, "rope_type": "default"});
        edit_config(d, "rope_parameters", newer);
    });
    let Ok(AnyModel::TokenModel(config, _)) = import(place.path()) else {
        panic!("it is the same model");
    };
    assert_eq!(config.transformer.rope_theta, 5e5);
}

/// What the released code has no name for is not written.
#[test]
fn models_with_parts_of_our_own_are_not_exported() {
    let AnyModel::Calm(mut config, _) = of_case("energy-k4") else {
        panic!()
    };
    config.chunk_context = 4;
    let model = AnyModel::Calm(config.clone(), config.init(1, &Device::flex()));
    let place = tempfile::tempdir().unwrap();
    let error = model
        .export(None, TokenIds::default(), place.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("chunk_context"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let (model, device) = (of_case("energy-k4"), Device::flex());
    let AnyModel::Calm(config, _) = &model else {
        panic!()
    };
    let l = config.latent_size;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("inputs.safetensors");
    let ids = |shape: [usize; 2], id: i64| {
        let bytes = move || id.to_le_bytes().repeat(shape[0] * shape[1]);
        TensorToWrite::new("input_ids", calm_weights::Dtype::I64, shape, bytes)
    };
    let zeros = |name: &str, shape: &[usize]| {
        TensorToWrite::floats(name, shape, vec![0.0; shape.iter().product()])
    };
    let message = |tensors: Vec<TensorToWrite>| {
        write_safetensors(&path, &[], tensors).unwrap();
        let files = TensorFiles::open(&path).unwrap();
        trace(&model, &TraceInputs::new(&files, &device), None)
            .unwrap_err()
            .to_string()
    };
    for (tensors, part) in [
        (vec![zeros("other", &[1])], "nothing can be computed"),
        (vec![ids([1, 6], 0)], "multiple of K = 4"),
        (vec![ids([1, 8], 40)], "40 is no token"),
        (vec![ids([1, 8], -1)], "-1 is no token"),
        (vec![zeros("input_ids", &[1, 8])], "whole numbers"),
        (vec![zeros("latent", &[1, 2, l + 1])], "latent"),
        (vec![zeros("latent", &[2, l])], "3 dimensions"),
        (vec![ids([1, 8], 0), zeros("target", &[3, 2, l])], "target"),
        (
            vec![ids([1, 8], 0), zeros("target_mask", &[1, 1])],
            "leaves out every position",
        ),
        (
            vec![
                ids([1, 8], 0),
                TensorToWrite::floats("target_mask", [1, 1], vec![0.5]),
            ],
            "whole numbers",
        ),
        (
            vec![
                ids([1, 8], 0),
                zeros("head_condition", &[2, config.backbone.hidden_size]),
            ],
            "of 2 positions, input_ids of 1",
        ),
        (
            vec![ids([1, 8], 0), zeros("head_noise", &[2, 1, 1])],
            "head_noise",
        ),
    ] {
        let message = message(tensors);
        assert!(message.contains(part), "{message}");
    }
}

/// Loading asks for no more than the file has, whatever it says of itself.
#[test]
fn an_autoencoder_of_any_size_waits_for_its_numbers() {
    let config = AutoencoderConfig {
        vocab_size: 1 << 30,
        chunk_size: 4,
        latent_size: 128,
        settings: match of_case("autoencoder-k4") {
            AnyModel::Autoencoder(config, _) => config.settings,
            other => panic!("{other:?}"),
        },
    };
    let device = Device::flex();
    let model = config.init(&mut calm_nn::Init::unloaded(&device));
    assert_eq!(model.encoder.embedding.weight.lazy_shape()[0], 1 << 30);
}
