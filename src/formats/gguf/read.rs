//! The container: keys and tensor descriptions. Every count and offset is checked against the size of the file, which may
//! still be arriving. Nothing is copied: strings and arrays stay in the bytes of the file.

use super::super::cursor::Cursor;
use super::encodings::Format;
use super::{ALIGNMENT, MAGIC, VERSION, dense};
use std::collections::BTreeMap;
use std::fmt;

/// Largest size of keys and tensor descriptions in bytes.
const MAX_METADATA: usize = 64 << 20;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_KEYS: usize = 1 << 16;
const MAX_TENSORS: usize = 1 << 16;
const MAX_DIMS: u32 = 4;
/// Longest name of a tensor in bytes.
const MAX_NAME: usize = 256;
/// Longest name of a key in bytes, as the format has it.
const MAX_KEY: usize = (1 << 16) - 1;
/// Arrays within arrays.
const MAX_DEPTH: usize = 16;

/// The part of a file before its data.
pub struct Gguf<'a> {
    /// Version of the container.
    pub version: u32,
    /// The keys by name.
    pub keys: BTreeMap<&'a str, Value<'a>>,
    /// The tensors in the order of the file.
    pub tensors: Vec<TensorInfo<'a>>,
    by_name: BTreeMap<&'a str, usize>,
    data_start: u64,
}

/// The description of a tensor, whose range was checked.
#[derive(Clone, Debug)]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions, the fastest-varying first.
    pub dims: Vec<u64>,
    /// The id of its type.
    pub kind: u32,
    /// From the start of the data section.
    offset: u64,
    /// Its size; 0 for a type that is not known.
    pub bytes: u64,
}

/// The value of a key.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An unsigned integer of any width.
    Uint(u64),
    /// A signed integer of any width.
    Int(i64),
    /// An f32.
    F32(f32),
    /// An f64.
    F64(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// A string that is not UTF-8, as its bytes.
    Bytes(&'a [u8]),
    /// An array.
    Array(Array<'a>),
}

/// Values of one type, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    kind: u32,
    /// Number of values.
    pub len: usize,
    bytes: &'a [u8],
    /// Whether no string in it is broken.
    utf8: bool,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a scalar of a value type.
fn scalar_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn value<'a>(c: &mut Cursor<'a>, kind: u32, key: &str) -> Result<Value<'a>, String> {
    let at = c.at();
    Ok(match kind {
        0 => Value::Uint(c.array::<1>(key)?[0].into()),
        1 => Value::Int(i8::from_le_bytes(c.array(key)?).into()),
        2 => Value::Uint(u16::from_le_bytes(c.array(key)?).into()),
        3 => Value::Int(i16::from_le_bytes(c.array(key)?).into()),
        4 => Value::Uint(c.u32(key)?.into()),
        5 => Value::Int(i32::from_le_bytes(c.array(key)?).into()),
        6 => Value::F32(f32::from_le_bytes(c.array(key)?)),
        7 => match c.array(key)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [b] => return Err(format!("key {key:?} at offset {at}: {b} is no boolean")),
        },
        STRING => {
            let bytes = c.bytes(&format!("key {key:?}"))?;
            std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str)
        }
        ARRAY => Value::Array(array(c, key, 1)?),
        10 => Value::Uint(c.u64(key)?),
        11 => Value::Int(i64::from_le_bytes(c.array(key)?)),
        12 => Value::F64(f64::from_le_bytes(c.array(key)?)),
        other => return Err(format!("key {key:?} at offset {at}: value type {other} is unknown")),
    })
}

fn array<'a>(c: &mut Cursor<'a>, key: &str, depth: usize) -> Result<Array<'a>, String> {
    let (at, kind) = (c.at(), c.u32(key)?);
    let size = match (kind, scalar_bytes(kind)) {
        (_, Some(size)) => size,
        (STRING, _) => 8,
        // The kind of the values of an empty array, and their number.
        (ARRAY, _) if depth < MAX_DEPTH => 4 + 8,
        (ARRAY, _) => {
            return Err(format!("key {key:?} at offset {at}: more than {MAX_DEPTH} arrays within each other"));
        }
        _ => return Err(format!("key {key:?} at offset {at}: array of the unknown type {kind}")),
    };
    let what = format!("length of the array {key:?}");
    let len = c.count(size, usize::MAX, &what)?;
    let start = c.at();
    let rest = c.rest();
    let mut utf8 = true;
    if scalar_bytes(kind).is_some() {
        c.take((len * size) as u64, key)?;
    } else {
        for _ in 0..len {
            utf8 &= if kind == STRING {
                std::str::from_utf8(c.bytes(key)?).is_ok()
            } else {
                array(c, key, depth + 1)?.utf8
            };
        }
    }
    Ok(Array { kind, len, bytes: &rest[..c.at() - start], utf8 })
}

impl<'a> Array<'a> {
    /// The values, if they are strings of UTF-8.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a str>> {
        let mut c = Cursor::new(self.bytes, "");
        (self.kind == STRING && self.utf8).then(|| (0..self.len).map_while(move |_| c.string("").ok()))
    }

    /// The values, if they are integers of at least 0.
    pub fn uints(&self) -> Option<Vec<u64>> {
        let mut c = Cursor::new(self.bytes, "");
        (0..self.len).map(|_| value(&mut c, self.kind, "").ok()?.as_u64()).collect()
    }
}

impl Array<'_> {
    /// The values, if they are floats.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let mut c = Cursor::new(self.bytes, "");
        (0..self.len)
            .map(|_| match value(&mut c, self.kind, "").ok()? {
                Value::F32(v) => Some(v),
                _ => None,
            })
            .collect()
    }
}

impl<'a> Value<'a> {
    /// An integer of any width that is at least 0.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::Uint(v) => Some(v),
            Value::Int(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// A number of any type.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::Uint(v) => Some(v as f64),
            Value::Int(v) => Some(v as f64),
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// A number, a boolean or a string as JSON.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        match *self {
            Value::Uint(v) => Some(v.into()),
            Value::Int(v) => Some(v.into()),
            Value::Bool(v) => Some(v.into()),
            Value::Str(v) => Some(v.into()),
            Value::F32(_) | Value::F64(_) => self.as_f64().filter(|v| v.is_finite()).map(Into::into),
            Value::Bytes(_) | Value::Array(_) => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Uint(v) => v.fmt(f),
            Value::Int(v) => v.fmt(f),
            Value::F32(v) => v.fmt(f),
            Value::F64(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
            Value::Str(s) if s.len() > 60 => write!(f, "{} bytes of text", s.len()),
            Value::Str(s) => write!(f, "{s:?}"),
            Value::Bytes(bytes) => write!(f, "{} bytes of text that is not UTF-8", bytes.len()),
            Value::Array(a) => {
                let what = match a.kind {
                    STRING if !a.utf8 => "strings, not all of them UTF-8",
                    STRING => "strings",
                    ARRAY => "arrays",
                    _ => "numbers",
                };
                write!(f, "{} {what}", a.len)
            }
        }
    }
}

/// The name of a tensor's type.
pub(super) fn kind_name(kind: u32) -> String {
    match (dense::name(kind), Format::from_id(kind)) {
        (Some(name), _) => name.into(),
        (_, Some(format)) => format.to_string(),
        (_, None) => format!("type {kind}"),
    }
}

impl TensorInfo<'_> {
    /// The name of its type.
    pub fn kind_name(&self) -> String {
        kind_name(self.kind)
    }
}

impl<'a> Gguf<'a> {
    /// Reads a whole file. The error names the key or tensor that is wrong, and its offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, String> {
        Self::parse_front(bytes, bytes.len() as u64).map(|file| file.expect("all its bytes are there"))
    }

    /// Reads the front of a file of `total` bytes. None if more bytes are needed.
    pub fn parse_front(bytes: &'a [u8], total: u64) -> Result<Option<Gguf<'a>>, String> {
        let limit = total.min(MAX_METADATA as u64) as usize;
        let bound = if (limit as u64) < total { " of the 64 MiB that metadata may take" } else { "" };
        let mut c = Cursor::front(&bytes[..bytes.len().min(limit)], limit, bound);
        match Self::read(&mut c, total) {
            Err(_) if c.starved() => Ok(None),
            result => result.map(Some),
        }
    }

    fn read(c: &mut Cursor<'a>, total: u64) -> Result<Gguf<'a>, String> {
        if c.array::<4>("magic")? != MAGIC {
            return Err("magic at offset 0 is not \"GGUF\": not a GGUF file".into());
        }
        let version = c.u32("version")?;
        // Version 3 added nothing but big-endian files. In version 1 lengths have 32 bits.
        if ![2, VERSION].contains(&version) {
            let other = version.swap_bytes();
            let (version, can) = match (1..=VERSION).contains(&other) {
                true => (other, " is big-endian: little-endian"),
                false => (version, ": 2 and 3"),
            };
            return Err(format!("GGUF version {version} at offset 4{can} can be read"));
        }
        // A description takes a name's length, a count, one dimension, a type, an offset; a key a length, a type, a byte.
        let tensors = c.count(8 + 4 + 8 + 4 + 8, MAX_TENSORS, "number of tensors")?;
        let keys = c.count(8 + 4 + 1, MAX_KEYS, "number of keys")?;
        let keys = read_keys(c, keys)?;
        let alignment = match keys.get("general.alignment") {
            Some(v) => v.as_u64().ok_or("key \"general.alignment\" is not a number")?,
            None => ALIGNMENT,
        };
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            let limit = MAX_ALIGNMENT;
            return Err(format!("key \"general.alignment\" is {alignment}: a power of two up to {limit} is possible"));
        }
        let group = keys.get("nanotern.group_size").and_then(Value::as_u64);
        let tensors = (0..tensors).map(|_| info(c, group)).collect::<Result<Vec<_>, _>>()?;
        let mut by_name = BTreeMap::new();
        for (i, t) in tensors.iter().enumerate() {
            if by_name.insert(t.name, i).is_some() {
                return Err(format!("tensor {:?} is there twice", t.name));
            }
        }
        let data_start = (c.at() as u64).next_multiple_of(alignment);
        let file = Gguf { version, keys, tensors, by_name, data_start };
        file.check_ranges(alignment, total)?;
        Ok(file)
    }

    /// Checks that every tensor is aligned, within the file, and overlaps no other.
    fn check_ranges(&self, alignment: u64, total: u64) -> Result<(), String> {
        let have = total.saturating_sub(self.data_start);
        let mut order: Vec<&TensorInfo<'_>> = self.tensors.iter().collect();
        order.sort_by_key(|t| t.offset);
        let (mut end, mut before) = (0, "");
        for t in order {
            let (name, offset, bytes) = (t.name, t.offset, t.bytes);
            if !offset.is_multiple_of(alignment) {
                return Err(format!("tensor {name:?}: offset {offset} is not a multiple of {alignment}"));
            }
            if offset > have || bytes > have - offset {
                return Err(format!(
                    "tensor {name:?}: {bytes} bytes at offset {offset} of the data are out of range: it has {have}"
                ));
            }
            if offset < end {
                return Err(format!(
                    "tensor {name:?}: offset {offset} overlaps tensor {before:?}, which ends at {end}"
                ));
            }
            (end, before) = (offset + bytes, name);
        }
        Ok(())
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// Offset of a tensor in the file.
    pub fn offset(&self, info: &TensorInfo<'_>) -> u64 {
        self.data_start + info.offset
    }
}

/// The front of a key, for errors.
pub fn short(key: &str) -> &str {
    let mut end = MAX_NAME.min(key.len());
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    &key[..end]
}

fn read_keys<'a>(c: &mut Cursor<'a>, count: usize) -> Result<BTreeMap<&'a str, Value<'a>>, String> {
    let mut keys = BTreeMap::new();
    for i in 0..count {
        let key = c.name(MAX_KEY, &format!("name of key {i}"))?;
        let short = short(key);
        let kind = c.u32(short)?;
        if keys.insert(key, value(c, kind, short)?).is_some() {
            return Err(format!("key {short:?} is there twice"));
        }
    }
    Ok(keys)
}

fn info<'a>(c: &mut Cursor<'a>, group: Option<u64>) -> Result<TensorInfo<'a>, String> {
    let name = c.name(MAX_NAME, "name of a tensor")?;
    let what = format!("description of tensor {name:?}");
    let (at, count) = (c.at(), c.u32(&what)?);
    if !(1..=MAX_DIMS).contains(&count) {
        return Err(format!(
            "tensor {name:?} at offset {at}: {count} dimensions, between 1 and {MAX_DIMS} are possible"
        ));
    }
    let dims = (0..count).map(|_| c.u64(&what)).collect::<Result<Vec<_>, _>>()?;
    let (kind, offset) = (c.u32(&what)?, c.u64(&what)?);
    if dims.contains(&0) {
        return Err(format!("tensor {name:?} at offset {at}: dimensions {dims:?} with a zero"));
    }
    let too_large = || format!("tensor {name:?} at offset {at}: dimensions {dims:?} are too large");
    let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
    let named = |what| format!("tensor {name:?} at offset {at}: {what}");
    let bytes = match (dense::bytes(kind, elements, dims[0]), Format::from_id(kind)) {
        (Some(bytes), _) => bytes.map_err(named)?,
        (_, Some(format)) => {
            let group = group.map_or(dims[0], |g| g.min(dims[0]));
            format.bytes(elements / dims[0], dims[0], group).map_err(named)?
        }
        // What it takes is not known. No weight is read from it.
        (None, None) => 0,
    };
    Ok(TensorInfo { name, dims, kind, offset, bytes })
}
