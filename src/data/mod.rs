//! Data sets: training and validation tokens, and which of them each step reads.
//!
//! Text is split between two characters: the first part is for training, the rest for validation. A BPE is trained on the
//! training part only. Every id is checked against the vocabulary before training starts.

pub mod sampler;
pub mod synthetic;
mod text;
mod tokens;
mod world;

#[cfg(feature = "native")]
mod files;
#[cfg(feature = "native")]
mod load;
#[cfg(feature = "native")]
mod prepare;
#[cfg(feature = "native")]
mod shakespeare;

pub use text::split_text;
pub use tokens::Tokens;

#[cfg(feature = "native")]
pub use {
    load::load,
    prepare::{Summary, prepare, train_tokenizer},
    tokens::{TokenMeta, write_tokens},
};

use crate::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Default target size of a trained vocabulary.
pub const DEFAULT_VOCAB_SIZE: usize = 4096;

/// The `[data]` section of a configuration. Paths are relative to the configuration's file. One that is not UTF-8 is written as
/// a `file://` URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The kind of data set.
    pub dataset: Dataset,
    /// Text file or folder (`text`), or token file (`tokens`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "native", serde(with = "crate::files::path_as_text"))]
    pub path: Option<PathBuf>,
    /// Validation data of the same kind. Without it, `val_fraction` of `path` is held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "native", serde(with = "crate::files::path_as_text"))]
    pub val_path: Option<PathBuf>,
    /// For token files: the exclusive limit of the ids. For a trained tokenizer: the target size, by default
    /// [`DEFAULT_VOCAB_SIZE`]. For other tokenizers: the largest size allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// `bpe` trains a tokenizer, `bytes` uses raw bytes, anything else is the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// Fraction of the text or tokens held back for validation, in (0, 1).
    pub val_fraction: f64,
    /// Seed of the synthetic text.
    pub seed: u64,
}

/// The kinds of data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// A small closed world, generated from a seed.
    #[default]
    Synthetic,
    /// Tiny Shakespeare, downloaded once.
    Shakespeare,
    /// A UTF-8 file, or all files of a folder.
    Text,
    /// A file of little-endian u32 token ids.
    Tokens,
}

impl std::fmt::Display for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dataset::Synthetic => "synthetic",
            Dataset::Shakespeare => "shakespeare",
            Dataset::Text => "text",
            Dataset::Tokens => "tokens",
        })
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: Dataset::default(),
            path: None,
            val_path: None,
            vocab_size: None,
            tokenizer: "bpe".to_string(),
            val_fraction: 0.1,
            seed: 0,
        }
    }
}

/// A data set ready for training.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Name for people: `synthetic`, `shakespeare`, or the file name.
    pub name: String,
    /// Training tokens, all below `vocab_size`.
    pub train: Tokens,
    /// Validation tokens, all below `vocab_size`.
    pub val: Tokens,
    /// Number of ids: all tokens are below it.
    pub vocab_size: usize,
    /// Bytes of the validation text, if known: bits/byte = nats/token * tokens / bytes / ln 2.
    pub val_bytes: Option<u64>,
    /// The tokenizer of the ids, if known.
    pub tokenizer: Option<Tokenizer>,
}
