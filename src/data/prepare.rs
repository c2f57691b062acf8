//! Encodes text to token files once, so that training reads them instead of encoding again.

use super::documents::{Documents, Side, Split};
use super::load::{TextData, format, given_tokenizer, train_bpe};
use super::report::{Report, Share};
use super::tokens::TokenWriter;
use super::{DataConfig, TokenMeta};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The result of [`prepare`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Paths of `train.bin`, `val.bin` and `tokenizer.json`.
    pub files: Vec<PathBuf>,
    /// What was read.
    pub report: Report,
    /// [`crate::tokenizer::Tokenizer::vocab_size`].
    pub vocab_size: usize,
    /// [`crate::tokenizer::Tokenizer::hash`].
    pub tokenizer_hash: String,
}

/// The files of prepared data, besides the descriptions of token files.
const NAMES: [&str; 3] = ["train.bin", "val.bin", "tokenizer.json"];

/// Refuses a folder with files of these names that are not prepared data.
fn check_folder(folder: &Path) -> Result<()> {
    if ["train.bin", "val.bin"].iter().any(|name| matches!(TokenMeta::read(&folder.join(name)), Ok(Some(_)))) {
        return Ok(());
    }
    let names = NAMES.iter().copied().chain(["train.json", "val.json"]);
    match names.map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => {
            let what = "is a file that nanotern did not write, and would be replaced: choose another folder";
            Err(Error::usage(format!("{}: {what}", path.display())))
        }
        None => Ok(()),
    }
}

/// Encodes the text that `cfg` describes, with paths relative to the working directory, into `output/train.bin` and
/// `output/val.bin`, their descriptions, and `output/tokenizer.json`. Memory does not grow with the text. Each file is
/// written atomically, and none before all text is encoded.
///
/// # Errors
/// When a file cannot be read or written or would replace one that is not of prepared data, the text is too short to split,
/// or a key is out of range.
pub fn prepare(cfg: &DataConfig, output: &Path) -> Result<Summary> {
    check_folder(output)?;
    let text = TextData::open(cfg, Path::new(""), given_tokenizer(cfg, Path::new(""), None)?)?;
    let [train_path, val_path, tokenizer_path] = NAMES.map(|name| output.join(name));
    let (mut train, mut val) = (TokenWriter::create(&train_path)?, TokenWriter::create(&val_path)?);
    let report = text.encode(&mut |side, ids| match side {
        Side::Train => train.push(ids),
        Side::Val => val.push(ids),
    })?;
    let (vocab_size, hash) = (text.tokenizer.vocab_size(), text.tokenizer.hash());
    let meta = |share: Share| {
        let Share { tokens, bytes, .. } = share;
        TokenMeta { vocab_size, tokenizer_hash: hash.clone(), tokens, bytes }
    };
    train.finish(&meta(report.train))?; // first: it makes the folder ours
    text.tokenizer.save(&tokenizer_path)?;
    val.finish(&meta(report.val))?;
    Ok(Summary { files: vec![train_path, val_path, tokenizer_path], report, vocab_size, tokenizer_hash: hash })
}

/// Trains a byte-level BPE of at most `vocab_size` tokens on all documents that `cfg` describes and writes it to the file
/// `output`. Returns it with what was read.
///
/// # Errors
/// When a file cannot be read or written, or the text is empty, or `vocab_size` is below 262.
pub fn train_tokenizer(cfg: &DataConfig, output: &Path) -> Result<(Tokenizer, Report)> {
    let path = cfg.path.as_deref().ok_or_else(|| Error::usage("training a tokenizer needs a path"))?;
    let documents = Documents::open(path, format(cfg, None), cfg.val_fraction)?;
    let (tokenizer, notes) = train_bpe(&documents, Split::All(Side::Train), cfg)?;
    tokenizer.save(output)?;
    let split = "all documents are for training".to_string();
    let mut report = Report { train: documents.share(), split, notes, ..Report::default() };
    documents.report(&mut report);
    Ok((tokenizer, report))
}
