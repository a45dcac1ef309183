//! A released checkpoint as a whole: config.json, a byte 255, and model.safetensors.
#![no_main]

use burn::tensor::Device;
use calm_lm::{AnyModel, WeightNumbers};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    let (config, weights) = calm_fuzz::halves(bytes);
    calm_fuzz::put("config.json", config);
    calm_fuzz::put("model.safetensors", weights);
    match AnyModel::import(calm_fuzz::place(), None, &Device::flex()) {
        Ok(model) => _ = model.with_weights(WeightNumbers::F32),
        Err(error) => calm_fuzz::said(error),
    }
});
