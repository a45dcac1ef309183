//! tokenizer_config.json beside a tokenizer that is whole.
#![no_main]

use std::sync::OnceLock;

use calm_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    static WHOLE: OnceLock<()> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let text = "the sea is not full ".repeat(9);
        let tokenizer = Tokenizer::train([text].into_iter(), 270).expect("a small tokenizer");
        let path = calm_fuzz::place().join("tokenizer.json");
        tokenizer.save(&path).expect("memory for a file");
    });
    calm_fuzz::put("tokenizer_config.json", bytes);
    match Tokenizer::load(calm_fuzz::place()) {
        Ok(tokenizer) => {
            let ids = tokenizer.encode("the sea <|endoftext|>").expect("plain text");
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
        Err(error) => calm_fuzz::said(error),
    }
});
