//! Writing: the layout is fixed first. Then tensors are encoded and written one by one.

use super::super::{ModelFile, TensorData, TextConfig, arch};
use super::keys::{KeyWriter, put_str};
use super::{ALIGNMENT, F16, F32, Format, MAGIC, Q8_0, VERSION, q8_0, tokens};
use crate::model::{Form, ModelConfig, Weight};
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;
use std::borrow::Cow;
use std::io::Write;

const _: () = assert!(cfg!(target_endian = "little"), "GGUF is little-endian, and numbers are written verbatim");

/// A GGUF file that is ready to be written.
pub struct Layout<'a> {
    model: &'a ModelFile,
    format: Format,
    arch: &'static dyn arch::Architecture,
    /// Everything before the data, padded.
    head: Vec<u8>,
    /// Size of each tensor before padding.
    sizes: Vec<u64>,
}

impl<'a> Layout<'a> {
    /// Lays a model out.
    ///
    /// # Errors
    /// [`Error::Usage`] when the format cannot hold the groups of the model, or its tokenizer does not fit its vocabulary.
    pub fn new(model: &'a ModelFile, format: Format) -> Result<Layout<'a>> {
        let ModelFile { config, vocab, tensors, text } = model;
        let weights = config.weights(*vocab);
        assert!(weights.iter().map(|w| &w.name).eq(tensors.iter().map(|t| &t.name)), "the tensors of the config");
        let (head, sizes) = lay_out(config, *vocab, &weights, text, format)?;
        Ok(Layout { model, format, arch: arch::of(config, format), head, sizes })
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        size(&self.head, &self.sizes)
    }

    /// Writes the file. Only a tensor that is encoded takes memory, one at a time.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.head)?;
        for (tensor, size) in self.model.tensors.iter().zip(&self.sizes) {
            let mut data = Cow::Borrowed(&tensor.data);
            if let Some(head) = self.arch.pairs(&self.model.config, &tensor.name) {
                data.to_mut().join_pairs(tensor.shape[0], head);
            }
            let bytes = match &*data {
                TensorData::F32(v) => Cow::Borrowed(bytemuck::cast_slice(v)),
                TensorData::F16(v) => Cow::Borrowed(bytemuck::cast_slice(v.reinterpret_cast())),
                TensorData::Ternary(t) => Cow::Owned(self.format.encode(t)),
                TensorData::Int8(table) => Cow::Owned(q8_0::encode(table)),
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

/// Size of the file of a model without a tokenizer.
///
/// # Errors
/// [`Error::Usage`] when the format cannot hold the groups of the model.
pub fn file_bytes(config: &ModelConfig, vocab: usize, format: Format) -> Result<u64> {
    let (head, sizes) = lay_out(config, vocab, &config.weights(vocab), &TextConfig::default(), format)?;
    Ok(size(&head, &sizes))
}

fn size(head: &[u8], sizes: &[u64]) -> u64 {
    head.len() as u64 + sizes.iter().map(|s| s.next_multiple_of(ALIGNMENT)).sum::<u64>()
}

/// Everything before the data, padded, and the size of each tensor before padding. Errors as [`Layout::new`].
fn lay_out(
    config: &ModelConfig,
    vocab: usize,
    weights: &[Weight],
    text: &TextConfig,
    format: Format,
) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut keys = KeyWriter::default();
    arch::write(config, vocab, format, &mut keys);
    tokens::write(text, vocab, &mut keys).map_err(Error::Usage)?;
    let arch = arch::of(config, format);
    let (mut infos, mut sizes, mut offset) = (Vec::new(), Vec::new(), 0u64);
    for weight in weights {
        let size = |what| Error::usage(format!("{}: {what}", weight.name));
        let elements = weight.elements() as u64;
        let (rows, inputs) = weight.matrix();
        let (rows, inputs) = (rows as u64, inputs as u64);
        let (kind, bytes) = match weight.form {
            Form::F32 => (F32, 4 * elements),
            Form::F16 => (F16, 2 * elements),
            Form::Int8 => (Q8_0, q8_0::bytes(elements, inputs).map_err(size)?),
            Form::Ternary { group, scales } => {
                format.check_scales(group, scales).map_err(size)?;
                (format.id(), format.bytes(rows, inputs, group as u64).map_err(size)?)
            }
        };
        put_str(&mut infos, &arch.tensor(&weight.name));
        infos.extend_from_slice(&(weight.shape.len() as u32).to_le_bytes());
        infos.extend(weight.shape.iter().rev().flat_map(|d| (*d as u64).to_le_bytes()));
        infos.extend_from_slice(&kind.to_le_bytes());
        infos.extend_from_slice(&offset.to_le_bytes());
        sizes.push(bytes);
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(weights.len() as u64).to_le_bytes());
    head.extend_from_slice(&keys.count.to_le_bytes());
    head.extend_from_slice(&keys.bytes);
    head.extend_from_slice(&infos);
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok((head, sizes))
}
