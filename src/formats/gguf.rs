//! GGUF: one file is enough to serve a model. Weights, config, tokenizer, stop tokens, chat template, residual
//! mixing.
//!
//! The container knows keys and tensors. What they mean for a model is the business of `arch`.

mod dense;
pub(super) mod encodings;
pub(super) mod foreign_text;
pub(super) mod keys;
mod q8_0;
mod read;
mod stream;
mod tokens;
mod write;

pub use encodings::Format;
pub(super) use read::short;
pub use read::{Array, Gguf, TensorInfo, Value};
pub use stream::Stream;
pub(super) use tokens::STOP;
#[cfg(feature = "native")]
pub(super) use tokens::{implied_start, lost};
pub use write::{Layout, file_bytes};

use super::{ModelFile, Tensor, TensorData, TextConfig, arch, mhc};
#[cfg(feature = "native")]
use crate::files::{self, Links, read_part};
use crate::memory;
use crate::model::{Form, ModelConfig, Role, Weight};
use dense::{F16, F32, Q8_0};
use keys::Keys;
use std::collections::BTreeSet;

/// The front of a file is parsed once so many bytes of it are there, and again each time their number has doubled.
const FIRST_LOOK: usize = 1 << 16;
const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;
/// What a file is aligned to unless it says otherwise.
const ALIGNMENT: u64 = 32;

/// A model file without the values of its tensors: all that must be known before they can be taken.
#[derive(Clone, Debug)]
pub struct Head {
    /// What the model is.
    pub config: ModelConfig,
    /// Rows of the embedding.
    pub vocab: usize,
    /// How ids are spelled.
    pub text: TextConfig,
    /// One for each weight of the configuration, in order.
    places: Vec<Place>,
}

/// Where a tensor lies in a file, and how it is encoded. All of this was checked.
#[derive(Clone, Debug)]
struct Place {
    weight: Weight,
    /// What the file calls it.
    name: String,
    /// Rows of a head, where the halves of its rotary pairs are adjacent in the file.
    pairs: Option<usize>,
    kind: u32,
    /// From the start of the file.
    offset: u64,
    bytes: u64,
}

impl Head {
    /// Reads the front of a file of `total` bytes; none if more of them are needed. The error names the key or tensor, and
    /// where there is one the offset.
    fn parse(front: &[u8], total: u64) -> Result<Option<Head>, String> {
        let Some(file) = Gguf::parse_front(front, total)? else { return Ok(None) };
        let rows = |name: &str| file.tensor(name).and_then(|t| t.dims.get(1)).copied();
        let (arch, config, vocab) = arch::read(&Keys { file: &file }, rows)?;
        let text = tokens::read(&file, vocab)?;
        text.check(vocab)?;
        let place = |weight: Weight| {
            let name = arch.tensor(&weight.name);
            let info = find(&file, &weight, &name)?;
            let pairs = arch.pairs(&config, &weight.name);
            Ok(Place { kind: info.kind, offset: file.offset(info), bytes: info.bytes, weight, name, pairs })
        };
        let weights = config.weights(vocab);
        let known: BTreeSet<String> = weights.iter().map(|weight| arch.tensor(&weight.name)).collect();
        if let Some(extra) = file.tensors.iter().find(|t| !known.contains(t.name)) {
            return Err(format!("tensor {:?} is unknown to the architecture", extra.name));
        }
        let places = weights.into_iter().map(place).collect::<Result<_, String>>()?;
        Ok(Some(Head { config, vocab, text, places }))
    }

    /// Refuses tensors that take more memory than is free, read one by one.
    fn check_memory(&self) -> crate::Result<()> {
        // Dense blocks become f32 values, and these f16 ones.
        let sizes = |p: &Place| match p.weight.form {
            Form::F16 => [2, 4].map(|bytes| p.weight.elements().saturating_mul(bytes)),
            _ => [p.bytes as usize; 2],
        };
        let (all, largest) = self
            .places
            .iter()
            .map(sizes)
            .fold((0usize, 0), |(all, largest), [held, read]| (all.saturating_add(held), read.max(largest)));
        // Codes of five values in a byte take a fourth more in memory.
        memory::check(all.saturating_add(all / 4).saturating_add(largest), memory::free(), "use a smaller model")
    }

    /// Number of parameters.
    pub fn param_count(&self) -> usize {
        self.places.iter().map(|p| p.weight.elements()).sum()
    }
}

impl Place {
    fn decode(&self, bytes: &[u8]) -> Result<Tensor, String> {
        let data = decode(&self.weight, self.kind, bytes);
        let mut data = data.map_err(|what| format!("tensor {:?} at offset {}: {what}", self.name, self.offset))?;
        if let Some(head) = self.pairs {
            data.split_pairs(self.weight.matrix().0, head);
        }
        Ok(Tensor::new(&self.weight, data))
    }
}

/// Reads a model; the error names the key or tensor, and where there is one the offset.
pub(super) fn load(bytes: &[u8]) -> Result<ModelFile, String> {
    let head = Head::parse(bytes, bytes.len() as u64)?.expect("all its bytes are there");
    head.check_memory().map_err(|e| e.to_string())?;
    let part = |p: &Place| &bytes[p.offset as usize..][..p.bytes as usize];
    let tensors = head.places.iter().map(|p| p.decode(part(p))).collect::<Result<_, _>>()?;
    Ok(ModelFile { config: head.config, vocab: head.vocab, tensors, text: head.text })
}

/// How a file of any architecture spells ids; one of other programs has a token for every row of its embedding. The error names the
/// key that is wrong.
pub fn text(file: &Gguf<'_>) -> Result<TextConfig, String> {
    let tokens = file.keys.get("tokenizer.ggml.tokens").and_then(Value::as_array);
    tokens::read(file, tokens.map_or(0, |tokens| tokens.len))
}

/// The front of a file with all keys and tensor descriptions, or as much of it as shows what is wrong with them.
///
/// # Errors
/// When it cannot be read.
#[cfg(feature = "native")]
pub fn read_front(file: &std::fs::File) -> std::io::Result<Vec<u8>> {
    let total = file.metadata()?.len();
    let mut front = Vec::new();
    loop {
        let more = (front.len() as u64).max(FIRST_LOOK as u64).min(total - front.len() as u64);
        front.extend(read_part(file, front.len() as u64, more)?);
        if !matches!(Gguf::parse_front(&front, total), Ok(None)) {
            return Ok(front);
        }
    }
}

/// Reads a model from a file, tensor by tensor.
#[cfg(feature = "native")]
pub(super) fn open(path: &std::path::Path) -> crate::Result<ModelFile> {
    use crate::Error;
    let file = files::open(path, Links::Follow)?;
    let failed = |e| Error::io(path, e);
    let total = file.metadata().map_err(failed)?.len();
    let wrong = |what: String| Error::invalid(path, what);
    let head = Head::parse(&read_front(&file).map_err(failed)?, total).map_err(wrong)?;
    let head = head.ok_or_else(|| wrong("was changed while it was read".into()))?;
    head.check_memory()?;
    let read = |p: &Place| p.decode(&read_part(&file, p.offset, p.bytes).map_err(failed)?).map_err(wrong);
    let tensors = head.places.iter().map(read).collect::<crate::Result<_>>()?;
    Ok(ModelFile { config: head.config, vocab: head.vocab, tensors, text: head.text })
}

/// The tensor `name` of a file, its shape and type checked against the weight.
fn find<'f, 'a>(file: &'f Gguf<'a>, weight: &Weight, name: &str) -> Result<&'f TensorInfo<'a>, String> {
    let info = file.tensor(name).ok_or_else(|| format!("tensor {name:?} is missing"))?;
    let shape: Vec<u64> = info.dims.iter().rev().copied().collect();
    if !shape.iter().copied().eq(weight.shape.iter().map(|d| *d as u64)) {
        return Err(format!("tensor {name:?} has shape {shape:?}; the configuration needs {:?}", weight.shape));
    }
    let fits = match weight.form {
        Form::F32 => info.kind == F32,
        Form::F16 => dense::is_read(info.kind),
        Form::Int8 => info.kind == Q8_0,
        Form::Ternary { .. } => Format::from_id(info.kind).is_some(),
    };
    if !fits {
        let kind = read::kind_name(info.kind);
        return Err(format!("tensor {name:?} is {kind}; the configuration needs {:?}", weight.form));
    }
    if let (Form::Ternary { group, scales }, Some(format)) = (weight.form, Format::from_id(info.kind)) {
        let named = |what| format!("tensor {name:?}: {what}");
        format.check_scales(group, scales).map_err(named)?;
        let (rows, inputs) = weight.matrix();
        let want = format.bytes(rows as u64, inputs as u64, group as u64).map_err(named)?;
        if info.bytes != want {
            return Err(named(format!("has {} bytes; groups of {group} take {want}", info.bytes)));
        }
    }
    Ok(info)
}

impl TensorData {
    /// Orders rows, of which a head has so many: those of a rotary pair were adjacent, and are then half a head apart.
    fn split_pairs(&mut self, rows: usize, head: usize) {
        self.order(rows, |r| r / head * head + r % head % (head / 2) * 2 + r % head / (head / 2));
    }

    /// The inverse of [`TensorData::split_pairs`].
    fn join_pairs(&mut self, rows: usize, head: usize) {
        self.order(rows, |r| r / head * head + r % head % 2 * (head / 2) + r % head / 2);
    }

    /// Orders rows: row r is then the one that was row `from(r)`.
    fn order(&mut self, rows: usize, from: impl Fn(usize) -> usize) {
        match self {
            TensorData::F32(values) => order(values, rows, from),
            TensorData::F16(values) => order(values, rows, from),
            TensorData::Ternary(t) => {
                order(&mut t.codes, rows, &from);
                if t.scales.len() > 1 {
                    order(&mut t.scales, rows, from);
                }
            }
            TensorData::Int8(t) => {
                order(&mut t.codes, rows, &from);
                order(&mut t.scales, rows, from);
            }
        }
    }
}

fn order<T: Copy>(values: &mut Vec<T>, rows: usize, from: impl Fn(usize) -> usize) {
    let width = values.len() / rows;
    *values = (0..rows).flat_map(|r| &values[from(r) * width..][..width]).copied().collect();
}

fn decode(weight: &Weight, kind: u32, bytes: &[u8]) -> Result<TensorData, String> {
    let not_finite = |i: usize| Err(format!("value {i} is not a finite number"));
    match weight.form {
        Form::F32 => {
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return not_finite(i);
            }
            if weight.role == Role::Mixing {
                mhc::check(&values)?;
            }
            Ok(TensorData::F32(values))
        }
        Form::F16 => dense::halves(kind, bytes).map(TensorData::F16),
        Form::Int8 => Ok(TensorData::Int8(q8_0::decode(bytes)?)),
        Form::Ternary { group, scales } => {
            let format = Format::from_id(kind).expect("types were checked");
            Ok(TensorData::Ternary(format.decode(bytes, weight.matrix(), (group, scales))?))
        }
    }
}
