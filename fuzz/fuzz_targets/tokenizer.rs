//! Any JSON is a tokenizer or an error. A tokenizer encodes and decodes any text, and any ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::TextConfig;
use nanotern::tokenizer::Tokenizer;
use nanotern_fuzz::Grammar;
use std::sync::LazyLock;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(include_str!("../grammars/tokenizer.txt")));

fuzz_target!(|input: &[u8]| {
    nanotern_fuzz::next_input();
    let made = GRAMMAR.maker(input).map(|mut maker| (maker.text("tokenizer"), maker.text("text")));
    let plain = || Some((String::from_utf8(input.to_vec()).ok()?, "a 1\u{20ac}<|end|>\n".to_string()));
    let Some((json, text)) = made.or_else(plain) else { return };
    let Ok(tokenizer) = Tokenizer::from_json(&json) else { return };
    let ids = [tokenizer.encode(&text), tokenizer.encode_with_specials(&text)].map(Result::unwrap_or_default).concat();
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    let all: Vec<u32> = (0..100).rev().collect();
    let _ = (tokenizer.decode(&ids), tokenizer.text_bytes(&all), TextConfig::new(&tokenizer));
});
