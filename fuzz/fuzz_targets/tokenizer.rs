//! Any JSON is a tokenizer or an error. A tokenizer encodes and decodes any text, and any ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::TextConfig;
use nanotern::tokenizer::Tokenizer;

fuzz_target!(|json: &str| {
    let Ok(tokenizer) = Tokenizer::from_json(json) else { return };
    let ids = tokenizer.encode_with_specials("a 1\u{20ac}<|end|>\n");
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    let all: Vec<u32> = (0..1000).rev().collect();
    let _ = (tokenizer.decode(&ids), tokenizer.text_bytes(&all), TextConfig::new(&tokenizer));
});
