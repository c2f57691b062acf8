//! Loads the corpus that a configuration describes.

use super::text::{check_fraction, split_text};
use super::{Corpus, DEFAULT_VOCAB_SIZE, DataConfig, Dataset, TokenMeta, Tokens, files, shakespeare, synthetic};
use crate::error::{Error, Result};
use crate::files::path_of;
use crate::tokenizer::{EOS, Tokenizer};
use std::path::{Path, PathBuf};

/// Loads the data set of `cfg`, whose paths are relative to `base_dir`. Downloads are kept in `cache_dir`.
///
/// # Errors
/// When a key is missing or out of range, a file cannot be read, a token id exceeds the vocabulary, token file and tokenizer
/// do not match, or the text is too short to split.
pub fn load(cfg: &DataConfig, base_dir: &Path, cache_dir: &Path) -> Result<Corpus> {
    match cfg.dataset {
        Dataset::Synthetic => {
            let text = synthetic::generate(cfg.seed, synthetic::TRAIN_BYTES);
            let tokenizer = choose(cfg, base_dir, &text.train)?;
            Corpus::from_text("synthetic", &text.train, &text.val, tokenizer)
        }
        Dataset::Shakespeare => {
            let (train, val) = read_split(cfg, &shakespeare::fetch(cache_dir)?, None, base_dir)?;
            let tokenizer = choose(cfg, base_dir, &train)?;
            Corpus::from_text("shakespeare", &train, &val, tokenizer)
        }
        Dataset::Text => {
            let path = required_path(cfg, base_dir)?;
            let val_path = cfg.val_path.as_ref().map(|p| base_dir.join(p));
            let (train, val) = read_split(cfg, &path, val_path.as_deref(), base_dir)?;
            let tokenizer = choose(cfg, base_dir, &train)?;
            Corpus::from_text(&file_name(&path), &train, &val, tokenizer)
        }
        Dataset::Tokens => load_tokens(cfg, base_dir),
    }
}

fn required_path(cfg: &DataConfig, base_dir: &Path) -> Result<PathBuf> {
    let missing = || Error::usage(format!("the `{}` data set needs a path (data.path, --data-path)", cfg.dataset));
    cfg.path.as_ref().map(|p| base_dir.join(p)).ok_or_else(missing)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read_split(cfg: &DataConfig, path: &Path, val_path: Option<&Path>, base_dir: &Path) -> Result<(String, String)> {
    let separator = separator(&cfg.tokenizer, base_dir)?;
    let text = files::read_text(path, &separator)?;
    if let Some(val_path) = val_path {
        return Ok((text, files::read_text(val_path, &separator)?));
    }
    let (train, val) = split_text(&text, cfg.val_fraction)?;
    if train.is_empty() || val.is_empty() {
        let what = format!("is too short to hold back {} of it for validation", cfg.val_fraction);
        return Err(Error::invalid(path, what));
    }
    Ok((train.to_string(), val.to_string()))
}

/// The separator between two files of a folder: the text of the tokenizer's end-of-document token.
pub(super) fn separator(tokenizer: &str, base_dir: &Path) -> Result<String> {
    if matches!(tokenizer, "bpe" | "bytes") {
        return Ok(EOS.to_string());
    }
    let tokenizer = Tokenizer::load(&base_dir.join(path_of(tokenizer)))?;
    Ok(tokenizer.eos().map_or_else(|| "\n\n".to_string(), |eos| tokenizer.decode(&[eos])))
}

/// The tokenizer that a configuration names; a BPE is trained on `train`.
fn choose(cfg: &DataConfig, base_dir: &Path, train: &str) -> Result<Tokenizer> {
    let target = cfg.vocab_size.unwrap_or(DEFAULT_VOCAB_SIZE);
    let tokenizer = make_tokenizer(&cfg.tokenizer, base_dir, train, target)?;
    match cfg.vocab_size {
        Some(limit) if tokenizer.vocab_size() > limit => Err(Error::usage(format!(
            "vocab_size is {limit}, but the tokenizer `{}` has {} tokens",
            cfg.tokenizer,
            tokenizer.vocab_size()
        ))),
        _ => Ok(tokenizer),
    }
}

pub(super) fn make_tokenizer(name: &str, base_dir: &Path, train: &str, vocab_size: usize) -> Result<Tokenizer> {
    match name {
        "bpe" => Tokenizer::train_bpe(train, vocab_size),
        "bytes" => Ok(Tokenizer::bytes()),
        path => Tokenizer::load(&base_dir.join(path_of(path))),
    }
}

fn load_tokens(cfg: &DataConfig, base_dir: &Path) -> Result<Corpus> {
    let path = required_path(cfg, base_dir)?;
    let tokens = Tokens::open(&path)?;
    let meta = TokenMeta::read(&path)?;
    let Some(vocab_size) = cfg.vocab_size.or(meta.as_ref().map(|m| m.vocab_size)) else {
        let what = format!(
            "{} has no .json description beside it, so vocab_size must be set (data.vocab_size)",
            path.display()
        );
        return Err(Error::usage(what));
    };
    tokens.check(vocab_size, &path)?;
    let tokenizer = tokenizer_beside(cfg, base_dir, &path)?;
    if let Some(larger) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&size| size > vocab_size) {
        return Err(Error::usage(format!("vocab_size is {vocab_size}, but the tokenizer has {larger} tokens")));
    }
    check_meta(meta.as_ref(), &path, vocab_size, tokenizer.as_ref())?;
    let (train, val, meta_bytes) = match &cfg.val_path {
        Some(val_path) => {
            let val_path = base_dir.join(val_path);
            let val = Tokens::open(&val_path)?;
            val.check(vocab_size, &val_path)?;
            let meta = TokenMeta::read(&val_path)?;
            check_meta(meta.as_ref(), &val_path, vocab_size, tokenizer.as_ref())?;
            (tokens, val, meta.map(|m| m.bytes))
        }
        None => {
            check_fraction(cfg.val_fraction)?;
            let cut = (tokens.len() as f64 * (1.0 - cfg.val_fraction)) as usize;
            if cut == 0 || cut == tokens.len() {
                let what = format!("{} tokens are too few to hold back {} of them", tokens.len(), cfg.val_fraction);
                return Err(Error::invalid(&path, what));
            }
            let (train, val) = tokens.split_at(cut);
            (train, val, None)
        }
    };
    let spelled = tokenizer.as_ref().map(|t| text_bytes(t, val.as_slice()));
    Ok(Corpus { name: file_name(&path), train, val, vocab_size, val_bytes: meta_bytes.or(spelled), tokenizer })
}

/// The tokenizer that a configuration names. For `bpe` it is the `tokenizer.json` beside the token file, if one exists.
fn tokenizer_beside(cfg: &DataConfig, base_dir: &Path, bin: &Path) -> Result<Option<Tokenizer>> {
    match cfg.tokenizer.as_str() {
        "bytes" => Ok(Some(Tokenizer::bytes())),
        "bpe" => {
            let beside = bin.with_file_name("tokenizer.json");
            if beside.exists() { Tokenizer::load(&beside).map(Some) } else { Ok(None) }
        }
        path => Tokenizer::load(&base_dir.join(path_of(path))).map(Some),
    }
}

fn check_meta(meta: Option<&TokenMeta>, bin: &Path, vocab_size: usize, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let Some(meta) = meta else { return Ok(()) };
    if meta.vocab_size > vocab_size {
        let what =
            format!("was made with {} tokens in the vocabulary, more than vocab_size {vocab_size}", meta.vocab_size);
        return Err(Error::invalid(bin, what));
    }
    match tokenizer.map(Tokenizer::hash) {
        Some(hash) if hash != meta.tokenizer_hash => {
            let what = format!("was made by the tokenizer {}, but the given one is {hash}", meta.tokenizer_hash);
            Err(Error::invalid(bin, what))
        }
        _ => Ok(()),
    }
}

/// Bytes of the text of `ids`.
fn text_bytes(tokenizer: &Tokenizer, ids: &[u32]) -> u64 {
    let lengths: Vec<u64> =
        (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token_bytes(id).map_or(0, |b| b.len() as u64)).collect();
    ids.iter().map(|&id| lengths.get(id as usize).copied().unwrap_or(0)).sum()
}
