//! GGUF files of other programs.

use super::common::Golden;
use super::raw::{Raw, RawTensor};
use super::{agrees, folders};
use nanotern::formats::gguf::{Gguf, Layout, Stream, TensorInfo};
use nanotern::formats::{Format, ModelFile, TensorData};
use nanotern::model::RopeScaling;
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

/// One of our files, taken apart.
pub(super) fn raw(name: &str) -> Raw {
    Raw::parse(&std::fs::read(folders()[0].join(name)).unwrap())
}

fn numbers(name: &str, values: &[f32]) -> RawTensor {
    let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    RawTensor { name: name.into(), dims: vec![values.len() as u64], dim_count: None, kind: 0, data, offset: None }
}

#[test]
fn a_number_beside_a_matrix_is_a_part_of_its_scale() {
    let plain = raw("qwen2.tq2_0.gguf");
    let model = ModelFile::from_gguf(&plain.bytes()).unwrap();
    let scale = |file: &ModelFile, name: &str| match &file.tensor(name).unwrap().data {
        TensorData::Ternary(t) => t.scales.clone(),
        other => panic!("{}", other.kind()),
    };
    let name = "layers.0.attn.q.weight";
    let with = |change: &dyn Fn(&mut Raw)| {
        let mut raw = plain.clone();
        change(&mut raw);
        ModelFile::from_gguf(&raw.bytes())
    };
    let own = scale(&model, name)[0];
    let doubled = with(&|raw| raw.tensor("blk.0.attn_q.scale").data = (2.0 * own).to_le_bytes().to_vec()).unwrap();
    assert_eq!(scale(&doubled, name), [2.0 * own]);
    // A block of zeros may have any scale; another has that of all.
    let zeros = with(&|raw| {
        raw.tensor("blk.0.attn_q.weight").data[..64].fill(0x55);
        raw.tensor("blk.0.attn_q.weight").data[64..66].fill(0);
    });
    assert_eq!(scale(&zeros.unwrap(), name), [own]);
    type Change = fn(&mut Raw);
    let cases: [(&str, Change); 6] = [
        ("attn_q.weight\" at offset", |raw| raw.tensor("blk.0.attn_q.weight").data[64..66].fill(0)),
        ("attn_q.scale\" at offset", |raw| raw.tensor("blk.0.attn_q.scale").data = f32::NAN.to_le_bytes().to_vec()),
        ("a scale is a finite f32", |raw| raw.tensor("blk.0.attn_q.scale").data = (-1f32).to_le_bytes().to_vec()),
        ("attn_q.scale\" is f32 [2]", |raw| {
            *raw.tensor("blk.0.attn_q.scale") = numbers("blk.0.attn_q.scale", &[1.0; 2])
        }),
        ("attn_norm.scale\" multiplies what is not ternary", |raw| {
            raw.tensors.push(numbers("blk.0.attn_norm.scale", &[1.0]))
        }),
        ("output.scale\" is unknown", |raw| raw.tensors.push(numbers("output.scale", &[1.0]))),
    ];
    for (part, change) in cases {
        let error = with(&|raw| change(raw)).map(|_| ()).expect_err(part);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn factors_of_rotary_frequencies_are_read_with_the_file() {
    let plain = raw("llama.i2_s.gguf");
    let model = ModelFile::from_gguf(&plain.bytes()).unwrap();
    let Some(RopeScaling::Factors { factors }) = &model.config.rope_scaling else { panic!("{:?}", model.config) };
    assert_eq!(factors[..4], [1.0, 1.0, 1.25, 1.75]);
    let mut scaled = plain.clone();
    scaled.set("llama.rope.scaling.factor", 6, &2f32.to_le_bytes());
    let error = ModelFile::from_gguf(&scaled.bytes()).unwrap_err();
    assert!(error.contains("rope_freqs.weight") && error.contains("so do keys"), "{error}");
    let mut zero = plain.clone();
    zero.tensor("rope_freqs.weight").data[..4].fill(0);
    let error = ModelFile::from_gguf(&zero.bytes()).unwrap_err();
    assert!(error.contains("rope_freqs.weight") && error.contains("out of range"), "{error}");
    let mut fewer = plain.clone();
    *fewer.tensor("rope_freqs.weight") = numbers("rope_freqs.weight", &[1.0; 7]);
    assert!(ModelFile::from_gguf(&fewer.bytes()).unwrap_err().contains("f32 [8]"));
    // A stream has tensors before all of the file is there.
    let bytes = plain.bytes();
    let error = Stream::new(Some(bytes.len() as u64)).push(&bytes).unwrap_err();
    assert!(error.contains("rope_freqs.weight"), "{error}");
    // Written by this program, the file holds them as a key.
    let again = Layout::new(&model, Format::I2S).unwrap().to_vec();
    assert_eq!(ModelFile::from_gguf(&again), Ok(model));
    assert!(Stream::new(Some(again.len() as u64)).push(&again).is_ok());
}
