//! Encodes text to token files once, so that training maps them into memory instead of encoding again.

use super::load::{make_tokenizer, separator};
use super::{TokenMeta, files, split_text, write_tokens};
use crate::error::{Error, Result};
use crate::tokenizer::{EOS, Tokenizer};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The result of [`prepare`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Paths of `train.bin`, `val.bin` and `tokenizer.json`.
    pub files: Vec<PathBuf>,
    /// Tokens in `train.bin`.
    pub train_tokens: u64,
    /// Bytes of training text.
    pub train_bytes: u64,
    /// Tokens in `val.bin`.
    pub val_tokens: u64,
    /// Bytes of validation text.
    pub val_bytes: u64,
    /// [`crate::tokenizer::Tokenizer::vocab_size`].
    pub vocab_size: usize,
    /// [`crate::tokenizer::Tokenizer::hash`].
    pub tokenizer_hash: String,
}

/// Encodes a text file or folder into `output/train.bin` and `output/val.bin`, their descriptions, and
/// `output/tokenizer.json`. Each file is written atomically.
///
/// `tokenizer` is `bpe` (trained on the training part, at most `vocab_size` tokens), `bytes`, or the path of a
/// `tokenizer.json`.
///
/// # Errors
/// When a file cannot be read or written, or would replace one of somebody else; the text is too short to split; or an argument
/// is out of range.
pub fn prepare(input: &Path, output: &Path, tokenizer: &str, vocab_size: usize, val_fraction: f64) -> Result<Summary> {
    check_output(output)?;
    let here = Path::new("");
    let text = files::read_text(input, &separator(tokenizer, here)?)?;
    let (train, val) = split_text(&text, val_fraction)?;
    if train.is_empty() || val.is_empty() {
        return Err(Error::invalid(input, format!("is too short to hold back {val_fraction} of it for validation")));
    }
    let tokenizer = make_tokenizer(tokenizer, here, train, vocab_size)?;
    let hash = tokenizer.hash();
    let tokenizer_path = output.join("tokenizer.json");
    let write = |name: &str, text: &str| {
        let ids = tokenizer.encode_with_specials(text);
        let meta = TokenMeta {
            vocab_size: tokenizer.vocab_size(),
            tokenizer_hash: hash.clone(),
            tokens: ids.len() as u64,
            bytes: text.len() as u64,
        };
        let path = output.join(name);
        write_tokens(&path, &ids, &meta).map(|()| (path, meta.tokens))
    };
    let (train_path, train_tokens) = write("train.bin", train)?;
    let (val_path, val_tokens) = write("val.bin", val)?;
    // Last: the descriptions tell a later call that it is ours.
    tokenizer.save(&tokenizer_path)?;
    Ok(Summary {
        files: vec![train_path, val_path, tokenizer_path],
        train_tokens,
        train_bytes: train.len() as u64,
        val_tokens,
        val_bytes: val.len() as u64,
        vocab_size: tokenizer.vocab_size(),
        tokenizer_hash: hash,
    })
}

/// Refuses to replace files that [`prepare`] did not write: it leaves descriptions of its token files.
fn check_output(output: &Path) -> Result<()> {
    if ["train.bin", "val.bin"].iter().any(|name| matches!(TokenMeta::read(&output.join(name)), Ok(Some(_)))) {
        return Ok(());
    }
    let names = ["train.json", "train.bin", "val.json", "val.bin", "tokenizer.json"];
    match names.map(|name| output.join(name)).iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => {
            let what = "is a file that nanotern did not write, and would be replaced: choose another folder";
            Err(Error::usage(format!("{}: {what}", path.display())))
        }
        None => Ok(()),
    }
}

/// Trains a byte-level BPE of at most `vocab_size` tokens on a text file or folder and writes it to the file `output`.
///
/// # Errors
/// When a file cannot be read or written, or the text is empty, or `vocab_size` is below 262.
pub fn train_tokenizer(input: &Path, vocab_size: usize, output: &Path) -> Result<Tokenizer> {
    let text = files::read_text(input, EOS)?;
    let tokenizer = Tokenizer::train_bpe(&text, vocab_size)?;
    tokenizer.save(output)?;
    Ok(tokenizer)
}
