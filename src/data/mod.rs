//! Data sets: where the training and validation tokens come from, and which of them a step reads.
//!
//! Text is cut at a character, the first part for training and the rest for validation; a BPE is trained on the
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

/// Target size of a trained vocabulary if none is given.
pub const DEFAULT_VOCAB_SIZE: usize = 4096;

/// The `[data]` section of a configuration. Paths are relative to the file it stands in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Which kind of data set.
    pub dataset: Dataset,
    /// Text file or folder (`text`), or token file (`tokens`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Validation data of the same kind; without it `val_fraction` of `path` is held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_path: Option<PathBuf>,
    /// Tokens: every id is below it. Trained tokenizer: target size, by default [`DEFAULT_VOCAB_SIZE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// `bpe` trains one, `bytes` takes raw bytes, anything else is the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// Part of the text held back for validation, in (0, 1).
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
    /// A UTF-8 file, or every file of a folder.
    Text,
    /// Little-endian u32 ids.
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

impl std::str::FromStr for Dataset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Dataset::Synthetic, Dataset::Shakespeare, Dataset::Text, Dataset::Tokens];
        let unknown = || format!("unknown data set `{name}`: expected synthetic, shakespeare, text or tokens");
        all.into_iter().find(|d| d.to_string() == name).ok_or_else(unknown)
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
    /// What it is, for people: `synthetic`, or the file name.
    pub name: String,
    /// Training tokens, all below `vocab_size`.
    pub train: Tokens,
    /// Validation tokens, all below `vocab_size`.
    pub val: Tokens,
    /// One more than the largest id there can be.
    pub vocab_size: usize,
    /// Bytes of text the validation tokens stand for, if known: bits/byte = nats/token * tokens / bytes / ln 2.
    pub val_bytes: Option<u64>,
    /// How the ids are spelled, if known.
    pub tokenizer: Option<Tokenizer>,
}
