//! Released checkpoints: import, trace and export against a PyTorch reference (fixtures/released).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
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

pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/released")
        .join(name)
}

pub(crate) fn import(directory: &Path) -> calm_lm::Result<AnyModel> {
    let beside = directory.join("autoencoder");
    let beside = beside.is_dir().then_some(beside);
    AnyModel::import(directory, beside.as_deref(), &Device::flex())
}

pub(crate) fn of_case(name: &str) -> AnyModel {
    import(&case(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub(crate) type Outputs = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn traced(model: &AnyModel, inputs: &Path, solver: Option<Solver>) -> Outputs {
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
pub(crate) fn compare(case: &str, found: &Outputs, expected: &Outputs) {
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
