//! Any bytes are a model or an error. A model that is written and read again stays the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::{Format, ModelFile, gguf::Layout};

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = ModelFile::from_gguf(bytes) else { return };
    if let Ok(layout) = Layout::new(&model, Format::Q1_58) {
        assert!(ModelFile::from_gguf(&layout.to_vec()).as_ref() == Ok(&model));
    }
});
