//! The tensors of a folder, in one file or in several that an index lists. Headers are checked before anything is taken from them.

use crate::files::{self, Links, read_part};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

pub(super) const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest index, and longest header of a file as in the crate `safetensors`, in bytes.
const MAX_INDEX: u64 = 64 << 20;
const MAX_HEADER: u64 = 100_000_000;
const MAX_FILES: usize = 1000;

/// Where a tensor is.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) kind: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: u64,
    file: usize,
    offset: u64,
}

impl Place {
    /// Whether it holds bytes, such as packed codes.
    pub(super) fn is_bytes(&self) -> bool {
        self.kind == Dtype::U8
    }

    pub(super) fn is_f32(&self) -> bool {
        self.kind == Dtype::F32
    }
}

/// All files of tensors of a folder.
pub(super) struct Shards {
    files: Vec<(PathBuf, File)>,
    places: BTreeMap<String, Place>,
}

impl Shards {
    pub(super) fn open(folder: &Path) -> Result<Shards> {
        let mut shards = Shards { files: Vec::new(), places: BTreeMap::new() };
        for name in names(folder)? {
            shards.add(folder.join(name))?;
        }
        Ok(shards)
    }

    /// Adds the tensors of a file.
    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = files::open(&path, Links::Follow)?;
        let wrong = |what: String| Error::invalid(&path, what);
        let failed = |e| Error::io(&path, e);
        let total = file.metadata().map_err(failed)?.len();
        let start = read_part(&file, 0, total.min(8)).map_err(failed)?;
        let length = start.first_chunk().map(|length| u64::from_le_bytes(*length));
        let length = length.filter(|length| *length <= MAX_HEADER && *length <= total.saturating_sub(8));
        let length =
            length.ok_or_else(|| wrong(format!("{total} bytes do not hold the header that it begins with")))?;
        let header = read_part(&file, 8, length).map_err(failed)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(e.to_string()))?;
        let (want, have) = (header.data_len() as u64, total - 8 - length);
        if want != have {
            return Err(wrong(format!("has {have} bytes of values, but its header describes {want}")));
        }
        for (name, info) in header.tensors() {
            let (from, to) = info.data_offsets;
            let place = Place {
                name: name.clone(),
                kind: info.dtype,
                shape: info.shape.clone(),
                bytes: (to - from) as u64,
                file: self.files.len(),
                offset: 8 + length + from as u64,
            };
            if self.places.insert(name.clone(), place).is_some() {
                return Err(wrong(format!("tensor {name:?} is in another file too")));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// By name.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.values()
    }

    pub(super) fn bytes(&self, place: &Place) -> Result<Vec<u8>> {
        let (path, file) = &self.files[place.file];
        read_part(file, place.offset, place.bytes).map_err(|e| Error::io(path, e))
    }

    /// The values of a tensor of floats, which are finite. The inner error says what is wrong with them.
    pub(super) fn floats(&self, place: &Place) -> Result<Result<Vec<f32>, String>> {
        let bytes = self.bytes(place)?;
        let values: Vec<f32> = match place.kind {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            other => return Ok(Err(format!("is {other:?}: F32, F16 and BF16 can be read"))),
        };
        Ok(match values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(format!("value {i} is not a finite number")),
            None => Ok(values),
        })
    }
}

/// Values as f16 ones. The error names the first that is too large.
pub(super) fn halves(values: &[f32]) -> Result<Vec<f16>, String> {
    let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    match halves.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("value {i} is {:e}, which f16 cannot hold", values[i])),
        None => Ok(halves),
    }
}

/// The names of the files of tensors.
fn names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Ok(vec![ONE.to_string()]);
    }
    let wrong = |what: String| Error::invalid(&path, what);
    let json: Json =
        serde_json::from_slice(&files::read(&path, Links::Follow, MAX_INDEX)?).map_err(|e| wrong(e.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| wrong("has no \"weight_map\"".into()))?;
    let mut names = BTreeSet::new();
    for file in map.values() {
        // A file of this folder, not of another.
        let name = file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|own| own == *name));
        names.insert(name.ok_or_else(|| wrong(format!("{file} is no name of a file")))?.to_string());
        if names.len() > MAX_FILES {
            return Err(wrong(format!("lists more than {MAX_FILES} files")));
        }
    }
    Ok(names.into_iter().collect())
}
