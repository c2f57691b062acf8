//! Data sets: training and validation tokens, and which of them each step reads.
//!
//! A corpus is documents: text files, lines of JSON, rows of Parquet. They are read from the disk as often as needed, never
//! held in memory as a whole. Whole documents are held back for validation, chosen by a checksum of their contents; of few
//! documents, the tail of each. After each document comes the end-of-document token. A BPE is trained on the training part
//! only. Every id is checked against the vocabulary before training starts.

pub mod sampler;
pub mod synthetic;
mod text;
mod tokens;
mod world;

#[cfg(feature = "native")]
mod documents;
#[cfg(feature = "native")]
mod encode;
#[cfg(feature = "native")]
mod load;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "native")]
mod prepare;
#[cfg(feature = "native")]
mod progress;
#[cfg(feature = "native")]
mod read;
#[cfg(feature = "native")]
mod report;
#[cfg(feature = "native")]
mod shakespeare;
#[cfg(feature = "native")]
mod sources;
#[cfg(feature = "native")]
mod unpack;

pub use text::split_text;
pub use tokens::Tokens;

#[cfg(feature = "native")]
pub use {
    load::{load, load_documents, load_for},
    prepare::{Summary, prepare, train_tokenizer},
    report::{Named, Report, Share},
    tokens::{TokenMeta, write_tokens},
};

use crate::tokenizer::Tokenizer;
#[cfg(feature = "native")]
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Default target size of a trained vocabulary.
pub const DEFAULT_VOCAB_SIZE: usize = 4096;

/// What `data.tokenizer` says for the tokenizer of the model that training goes on from.
#[cfg(feature = "native")]
pub const OF_MODEL: &str = "model";

/// The `[data]` section of a configuration. Paths are relative to the configuration's file. One that is not UTF-8 is written as
/// a `file://` URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The kind of data set.
    pub dataset: Dataset,
    /// For `text`, a file or a folder: text, lines of JSON (`.jsonl`, `.ndjson`, `.json`), each also as `.zst` or `.gz`, or
    /// `.parquet` (with the feature `parquet`). For `tokens`, a token file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "native", serde(with = "crate::files::path_as_text"))]
    pub path: Option<PathBuf>,
    /// Validation data of the same kind. Without it, `val_fraction` of `path` is held back: whole documents, or of fewer than
    /// 100 the tail of each.
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
    /// Field of JSON objects, or column of Parquet files, with the text.
    pub field: String,
    /// Whether the spelling of a special token in a text is that token, and that of the end-of-document token ends a
    /// document. Otherwise both are text. The built-in data sets always count them.
    pub special_tokens: bool,
    /// Separate documents: in training and validation a token sees nothing before its own document, and positions start again
    /// behind each token that ends one.
    pub separate_documents: bool,
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
    /// Documents in a file, or in all files of a folder.
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
            field: "text".to_string(),
            special_tokens: false,
            separate_documents: false,
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
    /// Bytes of the validation text alone, without separators and special tokens, if known.
    pub val_bytes: Option<u64>,
    /// The tokenizer of the ids, if known.
    pub tokenizer: Option<Tokenizer>,
    /// What was read, if it was read from files.
    #[cfg(feature = "native")]
    pub report: Option<Report>,
}

#[cfg(feature = "native")]
impl Corpus {
    /// The corpus for a model with so many rows of the embedding.
    ///
    /// # Errors
    /// [`Error::Usage`] with both numbers, when there are more ids than rows.
    pub fn of_rows(self, rows: usize) -> Result<Corpus> {
        if self.vocab_size > rows {
            let have = self.vocab_size;
            return Err(Error::usage(format!(
                "the data have {have} ids, but the model has {rows} rows of the embedding"
            )));
        }
        Ok(Corpus { vocab_size: rows, ..self })
    }
}

/// Bits per byte of text of a loss in nats per token, if `tokens` are the encoding of a known number of bytes, and not of none.
#[cfg(feature = "native")]
pub(crate) fn bits_per_byte(nats_per_token: f64, tokens: usize, bytes: Option<u64>) -> Option<f64> {
    let bytes_per_token = bytes.filter(|bytes| *bytes > 0)? as f64 / tokens as f64;
    Some(nats_per_token / std::f64::consts::LN_2 / bytes_per_token)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_no_bytes_has_no_bits_per_byte() {
        let nats = std::f64::consts::LN_2;
        assert_eq!([None, Some(0), Some(20)].map(|bytes| bits_per_byte(nats, 10, bytes)), [None, None, Some(0.5)]);
    }
}
