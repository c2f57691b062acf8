//! Folders as Hugging Face has them.

use super::common::Golden;
use super::{agrees, folders};
use nanotern::formats::ModelFile;
use std::path::PathBuf;

/// The folders with a model that are there.
fn models() -> Vec<PathBuf> {
    let inner = folders().into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut models: Vec<_> =
        inner.map(|entry| entry.unwrap().path()).filter(|p| p.join("config.json").is_file()).collect();
    models.sort();
    models
}

#[test]
fn every_folder_computes_what_was_expected() {
    for folder in models() {
        let file = ModelFile::open(&folder).unwrap();
        let want = ["expect.safetensors", "expect_transformers_f32.safetensors"].map(|name| folder.join(name));
        let want = Golden::read(want.iter().find(|path| path.is_file()).unwrap());
        agrees(&folder.file_name().unwrap().to_string_lossy(), &file, &want, "");
    }
}
