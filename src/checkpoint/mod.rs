//! Checkpoints that survive a kill, a power cut, a full disk and a flipped bit.
//!
//! A checkpoint is a directory `step_N/` or `final/` inside a run directory: `model.safetensors` (f32 latent weights),
//! `optimizer.safetensors`, `meta.json`, optionally `tokenizer.json`, and `manifest.json` with sizes and checksums.
//! A run directory may also contain these hidden directories:
//!
//! - `.tmp-NAME`: NAME is being written. Every file is synced, the manifest last, then the directory; a rename publishes it.
//! - `.old-NAME`: the previous NAME while it is being replaced. It is read if NAME itself is missing or damaged.
//! - `.del-NAME`: NAME is being deleted.
//!
//! A checkpoint with a value that is not a finite number is neither saved nor loaded. The next [`save`] cleans up what a
//! killed process left. Readers never write, so a server may load while a trainer saves.

#[cfg(feature = "native")]
mod lock;
#[cfg(feature = "native")]
mod manifest;
#[cfg(feature = "native")]
mod store;
#[cfg(feature = "native")]
mod tensors;

#[cfg(feature = "native")]
pub use {
    lock::RunLock,
    store::{
        Checkpoint, FORMAT_VERSION, Meta, RolledBack, RunState, keep_final, load, load_model, newest_model,
        newest_up_to, newest_valid, prune, save, step_name, verify,
    },
};

#[cfg(feature = "native")]
pub(crate) use store::{check_within, is_own};
/// What [`load`] does with the bytes of a file of tensors, for the fuzzer.
#[cfg(feature = "native")]
#[doc(hidden)]
pub use tensors::parse as parse_tensors;

use crate::graph::DType;
use half::bf16;
use std::ops::Range;

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The tensor's name in training, such as `layers.0.attn.q.weight`.
    pub name: String,
    /// The dimensions, outermost first; their product is `data.len()`.
    pub shape: Vec<usize>,
    /// The type that devices and files hold the elements in: f32, or for the state of optimizers also bf16, i8 or u8.
    pub dtype: DType,
    /// The elements, row-major.
    pub data: Vec<f32>,
}

impl Array {
    /// An array in f32.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Array {
        Array { name: name.into(), shape: shape.into(), dtype: DType::F32, data }
    }

    /// Some of its elements as devices and files hold them, little-endian.
    pub fn bytes(&self, elements: Range<usize>) -> Vec<u8> {
        let data = &self.data[elements];
        match self.dtype {
            DType::F32 => bytemuck::cast_slice(data).to_vec(),
            DType::Bf16 => data.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            DType::I8 => data.iter().map(|v| (*v as i8).cast_unsigned()).collect(),
            DType::U8 => data.iter().map(|v| *v as u8).collect(),
            other => unreachable!("no array is held in {other:?}"),
        }
    }

    /// The elements that these bytes hold, the inverse of [`Array::bytes`].
    pub fn elements(dtype: DType, bytes: &[u8]) -> Vec<f32> {
        match dtype {
            DType::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            DType::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            DType::I8 => bytes.iter().map(|b| f32::from(b.cast_signed())).collect(),
            DType::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
            other => unreachable!("no array is held in {other:?}"),
        }
    }

    /// Checks that every element is a finite number. The error names the array and the first that is not.
    pub fn finite(&self) -> Result<(), String> {
        match self.data.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(format!("{}: value {i} is {}: not a finite number", self.name, self.data[i])),
            None => Ok(()),
        }
    }
}
