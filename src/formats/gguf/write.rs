//! Writing: the layout is fixed first, then streamed with one tensor encoded at a time.

use super::super::{Encoding, ModelFile, TensorData, specs};
use super::{ALIGNMENT, F16, F32, Format, MAGIC, Q8_0, VERSION, keys, q8_0, tokens};
use crate::{Error, Result};
use std::io::Write;

/// Encodes keys and counts them.
#[derive(Default)]
pub(super) struct KeyWriter {
    bytes: Vec<u8>,
    count: u64,
}

fn put_str(out: &mut Vec<u8>, s: &str) {
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

    pub fn f64(&mut self, key: &str, value: f64) {
        self.key(key, 12, &value.to_le_bytes());
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

/// A GGUF file that is ready to be written.
pub struct Layout<'a> {
    model: &'a ModelFile,
    format: Format,
    /// Everything before the data, padded.
    head: Vec<u8>,
    /// Of each tensor, before padding.
    sizes: Vec<u64>,
}

impl<'a> Layout<'a> {
    /// # Errors
    /// When the format cannot hold the groups of the model, or its tokenizer does not fit its vocabulary.
    pub fn new(model: &'a ModelFile, format: Format) -> Result<Layout<'a>> {
        let specs = specs(&model.config, model.vocab);
        assert!(specs.iter().map(|s| &s.name).eq(model.tensors.iter().map(|t| &t.name)), "the tensors of the config");
        let mut keys = KeyWriter::default();
        keys::write(&model.config, model.vocab, format, &mut keys);
        tokens::write(&model.text, model.vocab, &mut keys).map_err(Error::Usage)?;
        let (mut infos, mut sizes, mut offset) = (Vec::new(), Vec::new(), 0u64);
        for spec in &specs {
            let elements: usize = spec.shape.iter().product();
            let size = |what| Error::usage(format!("{}: {what}", spec.name));
            let (kind, bytes) = match spec.encoding {
                Encoding::F32 => (F32, 4 * elements as u64),
                Encoding::F16 => (F16, 2 * elements as u64),
                Encoding::Q8_0 => (Q8_0, q8_0::bytes(elements as u64, spec.shape[1] as u64).map_err(size)?),
                Encoding::Ternary { group } => {
                    format.check_group(group).map_err(size)?;
                    let [outs, dim] = [spec.shape[0] as u64, spec.shape[1] as u64];
                    (format.id(), format.bytes(outs, dim, group as u64).map_err(size)?)
                }
            };
            put_str(&mut infos, &spec.gguf);
            infos.extend_from_slice(&(spec.shape.len() as u32).to_le_bytes());
            infos.extend(spec.shape.iter().rev().flat_map(|d| (*d as u64).to_le_bytes()));
            infos.extend_from_slice(&kind.to_le_bytes());
            infos.extend_from_slice(&offset.to_le_bytes());
            sizes.push(bytes);
            offset += bytes.next_multiple_of(ALIGNMENT);
        }
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(specs.len() as u64).to_le_bytes());
        head.extend_from_slice(&keys.count.to_le_bytes());
        head.extend_from_slice(&keys.bytes);
        head.extend_from_slice(&infos);
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        Ok(Layout { model, format, head, sizes })
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.head.len() as u64 + self.sizes.iter().map(|s| s.next_multiple_of(ALIGNMENT)).sum::<u64>()
    }

    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.head)?;
        for (tensor, size) in self.model.tensors.iter().zip(&self.sizes) {
            let bytes = match &tensor.data {
                TensorData::F32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
                TensorData::F16(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
                TensorData::Ternary(t) => self.format.encode(t),
                TensorData::Int8(table) => q8_0::encode(table),
            };
            assert_eq!(bytes.len() as u64, *size, "bytes of {}", tensor.name);
            out.write_all(&bytes)?;
            let padding = size.next_multiple_of(ALIGNMENT) - size;
            out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
        }
        Ok(())
    }

    /// The whole file in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() as usize);
        self.write(&mut out).expect("memory takes every write");
        out
    }
}
