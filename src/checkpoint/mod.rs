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

/// A named f32 array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The tensor's name in training, such as `layers.0.attn.q.weight`.
    pub name: String,
    /// The dimensions, outermost first; their product is `data.len()`.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: Vec<f32>,
}

impl Array {
    /// Checks that every element is a finite number. The error names the array and the first that is not.
    pub fn finite(&self) -> Result<(), String> {
        match self.data.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(format!("{}: value {i} is {}: not a finite number", self.name, self.data[i])),
            None => Ok(()),
        }
    }
}
