//! Safetensors files.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| calm_fuzz::read_tensors("a.safetensors", bytes));
