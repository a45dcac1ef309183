//! tokenizer.json.
#![no_main]

use calm_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    let path = calm_fuzz::put("other.json", bytes);
    match Tokenizer::load(&path) {
        Ok(tokenizer) => {
            if let Ok(ids) = tokenizer.encode("the sea is not full") {
                let _ = tokenizer.decode(&ids);
            }
        }
        Err(error) => calm_fuzz::said(error),
    }
});
