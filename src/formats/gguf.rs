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

use super::{ModelFile, Tensor, TensorData, TextConfig, arch, check_scales, mhc};
#[cfg(feature = "native")]
use crate::files::{self, Links, read_part};
use crate::memory;
use crate::model::{Form, ModelConfig, Role, RopeScaling, Scales, Weight};
use dense::{F16, F32, Q8_0};
use keys::Keys;
use std::borrow::Cow;
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
    /// The factors of rotary frequencies, where a file of another program has them.
    rope: Option<Numbers>,
}

/// Where f32 numbers lie that change what another part of the file means.
#[derive(Clone, Debug)]
struct Numbers {
    name: String,
    offset: u64,
    bytes: u64,
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
    /// By what its product is multiplied.
    scale: Option<Numbers>,
}

impl Head {
    /// Reads the front of a file of `total` bytes; none if more of them are needed. The error names the key or tensor, and
    /// where there is one the offset.
    fn parse(front: &[u8], total: u64) -> Result<Option<Head>, String> {
        let Some(file) = Gguf::parse_front(front, total)? else { return Ok(None) };
        let rows = |name: &str| file.tensor(name).and_then(|t| t.dims.get(1)).copied();
        let keys = Keys { file: &file };
        let (arch, config, vocab) = arch::read(&keys, rows)?;
        let text = tokens::read(&file, vocab)?;
        text.check(vocab)?;
        let numbers = |name: &str, count: usize| {
            let Some(info) = file.tensor(name) else { return Ok(None) };
            if info.kind != F32 || info.dims != [count as u64] {
                let (kind, dims) = (read::kind_name(info.kind), &info.dims);
                return Err(format!("tensor {name:?} is {kind} {dims:?}: it must be f32 [{count}]"));
            }
            Ok(Some(Numbers { name: name.to_string(), offset: file.offset(info), bytes: info.bytes }))
        };
        let place = |weight: Weight| {
            let name = arch.tensor(&weight.name);
            let info = find(&file, &weight, &name)?;
            let pairs = arch.pairs(&config, &weight.name);
            let scale = scale_of(&name).map_or(Ok(None), |name| numbers(&name, 1))?;
            if let Some(scale) = scale.as_ref().filter(|_| !matches!(weight.form, Form::Ternary { .. })) {
                return Err(format!("tensor {:?} multiplies what is not ternary: this is not honoured", scale.name));
            }
            Ok(Place { kind: info.kind, offset: file.offset(info), bytes: info.bytes, weight, name, pairs, scale })
        };
        let rope = numbers(arch::ROPE_FACTORS, config.head_dim() / 2)?;
        if rope.is_some() && config.rope_scaling.is_some() {
            return Err(format!("tensor {:?} scales rotary frequencies, and so do keys", arch::ROPE_FACTORS));
        }
        let weights = config.weights(vocab);
        let mut known: BTreeSet<String> = weights.iter().map(|weight| arch.tensor(&weight.name)).collect();
        if !arch::is_own(&keys) {
            known.extend(weights.iter().filter_map(|weight| scale_of(&arch.tensor(&weight.name))));
            known.insert(arch::ROPE_FACTORS.to_string());
        }
        if let Some(extra) = file.tensors.iter().find(|t| !known.contains(t.name)) {
            return Err(format!("tensor {:?} is unknown to the architecture", extra.name));
        }
        let places = weights.into_iter().map(place).collect::<Result<_, String>>()?;
        Ok(Some(Head { config, vocab, text, places, rope }))
    }

    /// The first numbers that change what another part of the file means.
    fn numbers(&self) -> Option<&Numbers> {
        self.rope.as_ref().or_else(|| self.places.iter().find_map(|place| place.scale.as_ref()))
    }

    /// Reads all tensors. `part` gives so many bytes of the file from an offset on.
    fn read<'a, E>(
        mut self,
        part: impl Fn(u64, u64) -> Result<Cow<'a, [u8]>, E>,
        wrong: impl Fn(String) -> E,
    ) -> Result<ModelFile, E> {
        let values = |numbers: &Numbers| numbers.values(&part(numbers.offset, numbers.bytes)?).map_err(&wrong);
        if let Some(rope) = &self.rope {
            let factors = values(rope)?.into_iter().map(f64::from).collect();
            self.config.rope_scaling = Some(RopeScaling::Factors { factors });
            self.config.check().map_err(|e| wrong(format!("tensor {:?}: {e}", rope.name)))?;
        }
        let tensor = |place: &Place| {
            let scale = place.scale.as_ref().map(values).transpose()?;
            let scale = scale.map_or(1.0, |values| values[0]);
            place.decode(&part(place.offset, place.bytes)?, scale).map_err(&wrong)
        };
        let tensors = self.places.iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(ModelFile { config: self.config, vocab: self.vocab, tensors, text: self.text })
    }

    /// Refuses tensors that take more memory than is free, read one by one.
    fn check_memory(&self) -> crate::Result<()> {
        // Dense blocks of other types become f32 values, and these f16 ones.
        let sizes = |p: &Place| match p.weight.form {
            Form::F16 if p.kind != F16 => [2, 4].map(|bytes| p.weight.elements().saturating_mul(bytes)),
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

impl Numbers {
    fn values(&self, bytes: &[u8]) -> Result<Vec<f32>, String> {
        floats(bytes).map_err(|what| format!("tensor {:?} at offset {}: {what}", self.name, self.offset))
    }
}

impl Place {
    /// The tensor, whose product is multiplied by `scale`.
    fn decode(&self, bytes: &[u8], scale: f32) -> Result<Tensor, String> {
        let data = decode(&self.weight, self.kind, bytes, scale);
        let mut data = data.map_err(|what| format!("tensor {:?} at offset {}: {what}", self.name, self.offset))?;
        if let Some(head) = self.pairs {
            data.split_pairs(self.weight.shape[0], head);
        }
        Ok(Tensor::new(&self.weight, data))
    }
}

/// Reads a model; the error names the key or tensor, and where there is one the offset.
pub(super) fn load(bytes: &[u8]) -> Result<ModelFile, String> {
    let head = Head::parse(bytes, bytes.len() as u64)?.expect("all its bytes are there");
    head.check_memory().map_err(|e| e.to_string())?;
    head.read(|offset, size| Ok(Cow::Borrowed(&bytes[offset as usize..][..size as usize])), |what| what)
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

/// Opens a file, and reads all but the values of its tensors.
#[cfg(feature = "native")]
fn front(path: &std::path::Path) -> crate::Result<(std::fs::File, Head)> {
    let file = files::open(path, Links::Follow)?;
    let failed = |e| crate::Error::io(path, e);
    let total = file.metadata().map_err(failed)?.len();
    let wrong = |what: String| crate::Error::invalid(path, what);
    let head = Head::parse(&read_front(&file).map_err(failed)?, total).map_err(wrong)?;
    let head = head.ok_or_else(|| wrong("was changed while it was read".into()))?;
    Ok((file, head))
}

/// Reads a model file without the values of its tensors.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::Invalid`](crate::Error::Invalid) names the file and the key or tensor that is wrong.
#[cfg(feature = "native")]
pub fn head(path: &std::path::Path) -> crate::Result<Head> {
    Ok(front(path)?.1)
}

/// Reads a model from a file, tensor by tensor.
#[cfg(feature = "native")]
pub(super) fn open(path: &std::path::Path) -> crate::Result<ModelFile> {
    let (file, head) = front(path)?;
    let failed = |e| crate::Error::io(path, e);
    let wrong = |what: String| crate::Error::invalid(path, what);
    head.check_memory()?;
    head.read(|offset, size| read_part(&file, offset, size).map(Cow::Owned).map_err(failed), wrong)
}

/// What a file of another program calls the number by which the product of this matrix is multiplied.
fn scale_of(name: &str) -> Option<String> {
    name.strip_suffix(".weight").map(|matrix| format!("{matrix}{}", arch::SCALE))
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
        let (group, scales) = format.stored((group, scales));
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

/// f32 values, which are finite.
fn floats(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("value {i} is not a finite number")),
        None => Ok(values),
    }
}

fn decode(weight: &Weight, kind: u32, bytes: &[u8], scale: f32) -> Result<TensorData, String> {
    match weight.form {
        Form::F32 => {
            let values = floats(bytes)?;
            if weight.role == Role::Mixing {
                mhc::check(&values)?;
            }
            Ok(TensorData::F32(values))
        }
        Form::F16 => dense::halves(kind, bytes).map(TensorData::F16),
        Form::Int8 => Ok(TensorData::Int8(q8_0::decode(bytes)?)),
        Form::Ternary { group, scales } => {
            let format = Format::from_id(kind).expect("types were checked");
            let mut t = format.decode(bytes, weight.matrix(), format.stored((group, scales)))?;
            if scales == Scales::Tensor {
                t.merge_scales()?;
                t.group = group;
            }
            if scale != 1.0 {
                t.scales.iter_mut().for_each(|own| *own *= scale);
                check_scales(&t.scales, scales)?;
            }
            Ok(TensorData::Ternary(t))
        }
    }
}
