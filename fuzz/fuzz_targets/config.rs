//! config.json alone.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    let _ = calm_lm::ReleasedConfig::parse(bytes);
});
