//! Checkpoints that survive a kill, a power cut, a full disk and a flipped bit.
//!
//! A checkpoint is a directory `step_N/` or `final/` inside a run directory: `model.safetensors` (f32 latent weights),
//! `optimizer.safetensors`, `meta.json`, optionally `tokenizer.json`, and `manifest.json` with sizes and checksums.
//! Beside them live only hidden names, never read as checkpoints except where said:
//!
//! - `.tmp-NAME`  being written. Every file is synced, the manifest last, then the directory; a rename publishes it.
//! - `.old-NAME`  what NAME was while it is being replaced; read when NAME itself is missing or damaged.
//! - `.del-NAME`  being deleted.
//!
//! The next [`save`] puts left-overs in order; readers never write, so a server may load while a trainer saves.

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
    store::{Checkpoint, FORMAT_VERSION, Meta, load, newest_valid, prune, save, step_name, verify},
};

/// A named array of f32, row-major; `shape` multiplies to `data.len()`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// As in training, such as `layers.0.attn.q.weight`.
    pub name: String,
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}
