//! GGUF v3: one file is enough to serve a model. Weights, config, tokenizer, stop tokens, chat template, residual
//! mixing.
//!
//! Architecture `bitnet` is written where stock runtimes compute the same (one stream, sub-norms, a tied head, groups of
//! 256 in a registered encoding), else `nanotern`, with the same scheme of keys. What makes the config exact beyond the
//! keys others know is under `nanotern.*` in both.

mod encodings;
mod keys;
mod q8_0;
mod read;
mod stream;
mod tokens;
mod write;

pub use encodings::Format;
pub use read::{Array, Gguf, TensorInfo, Value};
pub use stream::Stream;
pub use write::Layout;

use super::{Encoding, ModelFile, Spec, Tensor, TensorData, TextConfig, mhc, specs};
use crate::model::ModelConfig;
use half::f16;
use std::collections::BTreeSet;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;
/// What a file is aligned to unless it says otherwise.
const ALIGNMENT: u64 = 32;

/// Type ids of tensors.
const F32: u32 = 0;
const F16: u32 = 1;
const Q8_0: u32 = 8;

/// A model file but for the values of its tensors: all that must be known before they can be taken.
#[derive(Clone, Debug)]
pub struct Head {
    pub config: ModelConfig,
    pub vocab: usize,
    pub text: TextConfig,
    /// One for each of [`specs`], in that order.
    places: Vec<Place>,
}

/// Where a tensor lies in a file, and how it is encoded; all of it was checked.
#[derive(Clone, Debug)]
struct Place {
    spec: Spec,
    kind: u32,
    /// From the start of the file.
    offset: u64,
    bytes: u64,
}

impl Head {
    /// Reads the front of a file of `total` bytes; nothing yet if more of them are needed. The error names the key or
    /// tensor, and where there is one the offset.
    fn parse(front: &[u8], total: u64) -> Result<Option<Head>, String> {
        let Some(file) = Gguf::parse_front(front, total)? else { return Ok(None) };
        let (config, vocab) = keys::config(&file)?;
        let text = tokens::read(&file, vocab)?;
        text.check(vocab)?;
        let wanted = specs(&config, vocab);
        let known: BTreeSet<&str> = wanted.iter().map(|spec| spec.gguf.as_str()).collect();
        if let Some(extra) = file.tensors.iter().find(|t| !known.contains(t.name)) {
            return Err(format!("tensor {:?} is unknown to the architecture", extra.name));
        }
        let place = |spec: Spec| {
            let info = find(&file, &spec)?;
            Ok(Place { kind: info.kind, offset: file.offset(info), bytes: info.bytes, spec })
        };
        let places = wanted.into_iter().map(place).collect::<Result<_, String>>()?;
        Ok(Some(Head { config, vocab, text, places }))
    }

    /// Number of parameters.
    pub fn param_count(&self) -> usize {
        self.places.iter().map(|p| p.spec.shape.iter().product::<usize>()).sum()
    }
}

impl Place {
    fn decode(&self, bytes: &[u8], streams: usize) -> Result<Tensor, String> {
        let Place { spec, kind, offset, .. } = self;
        let data = decode(spec, *kind, bytes, streams);
        let data = data.map_err(|what| format!("tensor {:?} at offset {offset}: {what}", spec.gguf))?;
        Ok(Tensor { name: spec.name.clone(), shape: spec.shape.clone(), data })
    }
}

/// Reads a model; the error names the key or tensor, and where there is one the offset.
pub(super) fn load(bytes: &[u8]) -> Result<ModelFile, String> {
    let head = Head::parse(bytes, bytes.len() as u64)?.expect("all its bytes are there");
    let part = |p: &Place| &bytes[p.offset as usize..][..p.bytes as usize];
    let tensors = head.places.iter().map(|p| p.decode(part(p), head.config.mhc_streams)).collect::<Result<_, _>>()?;
    Ok(ModelFile { config: head.config, vocab: head.vocab, tensors, text: head.text })
}

/// The tensor of a spec, its shape and type checked.
fn find<'f, 'a>(file: &'f Gguf<'a>, spec: &Spec) -> Result<&'f TensorInfo<'a>, String> {
    let info = file.tensor(&spec.gguf).ok_or_else(|| format!("tensor {:?} is missing", spec.gguf))?;
    let shape: Vec<u64> = info.dims.iter().rev().copied().collect();
    if !shape.iter().copied().eq(spec.shape.iter().map(|d| *d as u64)) {
        return Err(format!("tensor {:?} has shape {shape:?}; the configuration needs {:?}", info.name, spec.shape));
    }
    let fits = match spec.encoding {
        Encoding::F32 => info.kind == F32,
        Encoding::Q8_0 => info.kind == Q8_0,
        Encoding::F16 => info.kind == F16,
        Encoding::Ternary { .. } => Format::from_id(info.kind).is_some(),
    };
    if !fits {
        let (name, kind) = (info.name, read::kind_name(info.kind));
        return Err(format!("tensor {name:?} is {kind}; the configuration needs {:?}", spec.encoding));
    }
    if let (Encoding::Ternary { group }, Some(format)) = (spec.encoding, Format::from_id(info.kind)) {
        format.check_group(group).map_err(|what| format!("tensor {:?}: {what}", info.name))?;
    }
    Ok(info)
}

fn decode(spec: &Spec, kind: u32, bytes: &[u8], streams: usize) -> Result<TensorData, String> {
    let not_finite = |i: usize| Err(format!("value {i} is not a finite number"));
    match spec.encoding {
        Encoding::F32 => {
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return not_finite(i);
            }
            if spec.name.ends_with(".mhc") {
                mhc::check(&values, streams)?;
            }
            Ok(TensorData::F32(values))
        }
        Encoding::F16 => {
            let values: Vec<f16> = bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
            match values.iter().position(|v| !v.is_finite()) {
                Some(i) => not_finite(i),
                None => Ok(TensorData::F16(values)),
            }
        }
        Encoding::Q8_0 => Ok(TensorData::Int8(q8_0::decode(bytes)?)),
        Encoding::Ternary { group } => {
            let format = Format::from_id(kind).expect("types were checked");
            let ternary = format.decode(bytes, spec.shape[0], spec.shape[1], group)?;
            Ok(TensorData::Ternary(ternary))
        }
    }
}
