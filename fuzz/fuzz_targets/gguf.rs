//! A GGUF file is a model or an error; a model survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::{Format, ModelFile, gguf::Layout};

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = ModelFile::from_gguf(bytes) else { return };
    if let Ok(layout) = Layout::new(&model, Format::Q1_58) {
        assert!(ModelFile::from_gguf(&layout.to_vec()).as_ref() == Ok(&model));
    }
});
