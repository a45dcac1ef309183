//! Inputs of a trace, for a small CALM.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use calm_lm::{AnyModel, TraceInputs, WeightNumbers, trace};
use calm_weights::TensorFiles;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    static MODEL: OnceLock<AnyModel> = OnceLock::new();
    let device = Device::flex();
    let model = MODEL.get_or_init(|| {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/released/energy-k4");
        let model = AnyModel::import(&case, None, &Device::flex()).expect("a whole checkpoint");
        model.with_weights(WeightNumbers::F32)
    });
    let path = calm_fuzz::put("in.safetensors", bytes);
    let Ok(files) = TensorFiles::open(&path) else {
        return;
    };
    if let Err(error) = trace(model, &TraceInputs::new(&files, &device), None) {
        calm_fuzz::said(error);
    }
});
