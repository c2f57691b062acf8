//! Reading and writing the keys of a file, each with its type.

use super::read::{Gguf, Value};

/// Reads keys of the type that their reader expects.
pub struct Keys<'f, 'a> {
    pub file: &'f Gguf<'a>,
}

impl<'a> Keys<'_, 'a> {
    /// The value of a key, if the file has it. The error says what it must be.
    pub fn get<T>(&self, key: &str, want: &str, as_t: impl Fn(&Value<'a>) -> Option<T>) -> Result<Option<T>, String> {
        let Some(value) = self.file.keys.get(key) else { return Ok(None) };
        as_t(value).map(Some).ok_or_else(|| format!("key {key:?} is {value}: it must be {want}"))
    }

    /// A size.
    pub fn size(&self, key: &str) -> Result<Option<usize>, String> {
        self.get(key, "a size", |v| v.as_u64().and_then(|v| usize::try_from(v).ok()))
    }

    /// A finite f32.
    pub fn finite(&self, key: &str) -> Result<Option<f32>, String> {
        self.get(key, "a finite f32", |v| if let Value::F32(v) = v { Some(*v).filter(|v| v.is_finite()) } else { None })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, "a boolean", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key, "a string", Value::as_str)
    }
}

/// The value of a key that must be there.
pub fn required<T>(value: Result<Option<T>, String>, key: &str) -> Result<T, String> {
    value?.ok_or_else(|| format!("key {key:?} is missing"))
}

/// Encodes keys and counts them.
#[derive(Default)]
pub struct KeyWriter {
    pub bytes: Vec<u8>,
    pub count: u64,
}

pub fn put_str(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

impl KeyWriter {
    fn key(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.count += 1;
        put_str(&mut self.bytes, key);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4, &value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6, &value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7, &[u8::from(value)]);
    }

    pub fn str(&mut self, key: &str, value: &str) {
        self.key(key, 8, &[]);
        put_str(&mut self.bytes, value);
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9, &kind.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u64).to_le_bytes());
    }

    pub fn u32s(&mut self, key: &str, values: &[u32]) {
        self.array(key, 4, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    pub fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, 5, values.len());
        self.bytes.extend(values.flat_map(i32::to_le_bytes));
    }

    pub fn strings(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        values.iter().for_each(|v| put_str(&mut self.bytes, v));
    }
}
