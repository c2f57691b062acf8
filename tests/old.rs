//! Files of earlier versions, in `tests/old`, can be read and give the same text as before.
//!
//! `nanotern.gguf` (an untied ternary head, two streams) and `bitnet.gguf` have a key for each option of the model, while
//! current files have one key for all. `nanotern.gguf` was exported from the run `run`.
#![cfg(feature = "native")]

mod common;

use common::scalar;
use nanotern::checkpoint;
use nanotern::formats::{Format, ModelFile, gguf};
use nanotern::infer::{Engine, EngineOptions, Sampling};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old").join(name)
}

/// The text that the model generates after a prompt.
fn text(file: &ModelFile, prompt: &str, temperature: f32) -> String {
    let tokenizer = file.tokenizer().unwrap().unwrap();
    let mut engine = Engine::new(file, &scalar(), EngineOptions { slots: 1, context: 0 }).unwrap();
    let sampling = Sampling { temperature, seed: 3, max_tokens: 24, ..Sampling::default() };
    tokenizer.decode(&engine.generate(&tokenizer.encode_with_specials(prompt).unwrap(), sampling).unwrap().0)
}

/// (file, prompt, temperature, text that the version which wrote the file generated).
const TEXTS: [(&str, &str, f32, &str); 6] = [
    ("nanotern.gguf", "<|user|>The qu", 0.0, "s the the the the the th"),
    ("nanotern.gguf", "<|user|>The qu", 0.8, "ple lemale mhaf thh 3 x "),
    ("nanotern.gguf", "<|user|>What is", 0.8, " if che is cicattotoch o"),
    ("nanotern.gguf", "the quick", 0.8, "e dame idof of toutocowe"),
    ("bitnet.gguf", "<|user|>What is", 0.8, " ox jumps over the lazy "),
    ("bitnet.gguf", "the quick", 0.0, " brown fox jumps over t"),
];

#[test]
fn files_give_the_text_that_they_gave() {
    for (name, prompt, temperature, want) in TEXTS {
        let file = ModelFile::open(&old(name)).unwrap();
        assert_eq!(text(&file, prompt, temperature), want, "{name}, {prompt}");
    }
}

#[test]
fn a_checkpoint_is_the_file_that_was_exported_from_it() {
    let (run, file) = (ModelFile::open(&old("run")).unwrap(), ModelFile::open(&old("nanotern.gguf")).unwrap());
    assert_eq!(run, file);
    // Writing it again, with the one key of the current format, loses nothing.
    for (name, format) in [("nanotern.gguf", Format::Q1_58), ("bitnet.gguf", Format::Tq2_0)] {
        let file = ModelFile::open(&old(name)).unwrap();
        let bytes = gguf::Layout::new(&file, format).unwrap().to_vec();
        assert!(gguf::Gguf::parse(&bytes).unwrap().keys.contains_key("nanotern.config"));
        assert_eq!(ModelFile::from_gguf(&bytes).unwrap(), file);
    }
}

#[test]
fn a_run_goes_on_as_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir_all(run.join("final")).unwrap();
    for folder in ["", "final"] {
        for entry in fs::read_dir(old("run").join(folder)).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
            fs::copy(&entry, run.join(folder).join(entry.file_name().unwrap())).unwrap();
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanotern"));
    command.args(["train", "--backend", "cpu", "--cpu-level", "scalar", "--total-steps", "303", "--resume"]).arg(&run);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let saved = checkpoint::load(&run.join("final")).unwrap();
    let loss = saved.meta.val_loss.unwrap();
    assert!((loss - 1.930_388).abs() < 1e-5, "step {}: validation loss {loss}", saved.meta.step);
}
