//! Any bytes are a model or an error, also when they arrive in two pieces. A model that is written and read again stays the
//! same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::gguf::{Layout, Stream};
use nanotern::formats::{Format, ModelFile};
use nanotern_fuzz as _;

fuzz_target!(|bytes: &[u8]| {
    let model = ModelFile::from_gguf(bytes);
    let mut stream = Stream::new(Some(bytes.len() as u64));
    let (front, rest) = bytes.split_at(bytes.len() / 2);
    let arrived = stream.push(front).and_then(|()| stream.push(rest)).and_then(|()| stream.end());
    let Ok(model) = model else { return };
    assert!(arrived.is_ok() && stream.head().is_some_and(|head| head.config == model.config), "{arrived:?}");
    let _ = model.tokenizer();
    if let Ok(layout) = Layout::new(&model, Format::Q1_58) {
        assert!(ModelFile::from_gguf(&layout.to_vec()).as_ref() == Ok(&model));
    }
});
