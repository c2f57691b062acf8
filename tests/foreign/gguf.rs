//! GGUF files of other programs.

use super::common::Golden;
use super::{agrees, folders};
use nanotern::formats::gguf::{Gguf, Layout, TensorInfo};
use nanotern::formats::{Format, ModelFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of a folder, in order.
fn gguf_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect();
    files.sort();
    files
}

#[test]
fn every_file_computes_what_was_expected() {
    for folder in folders() {
        for path in gguf_files(&folder) {
            let mut file = ModelFile::open(&path).unwrap();
            if path.file_stem().unwrap().to_string_lossy().starts_with("d_") {
                file.keep_inputs().unwrap();
            }
            let want = Golden::read(&path.with_extension("expect.safetensors"));
            agrees(&path.file_stem().unwrap().to_string_lossy(), &file, &want, "ref.");
        }
    }
}

/// The bytes of each tensor of a file, by name.
pub fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = Gguf::parse(bytes).unwrap();
    let part = |t: &TensorInfo<'_>| bytes[file.offset(t) as usize..][..t.bytes as usize].to_vec();
    file.tensors.iter().map(|t| (t.name.to_string(), part(t))).collect()
}

/// Its name in a file.
pub fn architecture(bytes: &[u8]) -> String {
    Gguf::parse(bytes).unwrap().keys["general.architecture"].as_str().unwrap().to_string()
}

#[test]
fn a_file_of_bitnet_is_written_as_it_was() {
    for folder in folders() {
        let Some(path) = gguf_files(&folder).into_iter().find(|path| path.to_string_lossy().contains("i2_s")) else {
            continue;
        };
        let bytes = std::fs::read(path).unwrap();
        let model = ModelFile::from_gguf(&bytes).unwrap();
        let again = Layout::new(&model, Format::I2S).unwrap().to_vec();
        assert_eq!(tensors(&again), tensors(&bytes));
        let read = ModelFile::from_gguf(&again).unwrap();
        assert_eq!((read.config, read.tensors), (model.config.clone(), model.tensors.clone()));
        assert_eq!(architecture(&again), architecture(&bytes));
        for other in [Format::Q1_58, Format::Tq2_0] {
            let error = Layout::new(&model, other).err().unwrap().to_string();
            assert!(error.contains("i2_s"), "{error}");
        }
    }
}
