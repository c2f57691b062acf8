//! Any bytes are tensors or an error. Tensors that are read have as many values as their shape says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::checkpoint::parse_tensors;
use nanotern_fuzz::Grammar;
use std::path::Path;
use std::sync::LazyLock;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(include_str!("../grammars/checkpoint.txt")));

fuzz_target!(|input: &[u8]| {
    let made = GRAMMAR.maker(input).map(|mut maker| {
        let header = maker.text("header");
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 256]].concat()
    });
    let Ok(tensors) = parse_tensors(Path::new("model.safetensors"), made.as_deref().unwrap_or(input)) else { return };
    assert!(tensors.iter().all(|t| t.shape.iter().product::<usize>() == t.data.len()));
});
