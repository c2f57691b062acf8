//! A checkpoint with any manifest is an error. One whose checksums are right, with any contents, is a model or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::checkpoint;
use nanotern::formats::ModelFile;
use nanotern_fuzz::{Grammar, Maker};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(include_str!("../grammars/checkpoint.txt")));

#[derive(Serialize)]
struct Entry {
    name: String,
    bytes: u64,
    crc32c: String,
}

#[derive(Serialize)]
struct Manifest {
    format: u32,
    files: Vec<Entry>,
    crc32c: String,
}

fuzz_target!(|input: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    match GRAMMAR.maker(input) {
        Some(maker) => {
            make(dir.path(), maker).expect("a checkpoint");
            let _ = (checkpoint::verify(dir.path()), ModelFile::from_checkpoint(dir.path(), true));
        }
        None => {
            fs::write(dir.path().join("manifest.json"), input).expect("a manifest");
            assert!(checkpoint::load(dir.path()).is_err() && checkpoint::verify(dir.path()).is_err());
        }
    }
});

/// Writes a checkpoint. Its manifest is right, but may name other files too, or one in place of another.
fn make(dir: &Path, mut maker: Maker) -> std::io::Result<()> {
    let header = maker.text("header");
    let tensors = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 256]].concat();
    let contents = [
        ("meta.json", maker.text("meta").into_bytes()),
        ("model.safetensors", tensors.clone()),
        ("optimizer.safetensors", tensors),
    ];
    let mut files = Vec::new();
    for (name, bytes) in contents {
        fs::write(dir.join(name), &bytes)?;
        let name = if maker.choice() < 250 { name.to_string() } else { maker.text("file") };
        files.push(Entry { name, bytes: bytes.len() as u64, crc32c: hex(&bytes) });
    }
    for _ in 0..maker.choice().saturating_sub(253) {
        files.push(Entry { name: maker.text("file"), bytes: 0, crc32c: hex(b"") });
    }
    let mut manifest = Manifest { format: 1, files, crc32c: "00000000".into() };
    manifest.crc32c = hex(&manifest.text());
    fs::write(dir.join("manifest.json"), manifest.text())
}

impl Manifest {
    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("it can be written");
        text.push(b'\n');
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(bytes))
}
