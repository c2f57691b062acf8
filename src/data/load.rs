//! Loads the corpus that a configuration describes.

use super::documents::{Documents, Format, Side, Split, also_in, clear_of, cut_near};
use super::encode::{Encoder, Out};
use super::read::Chunk;
use super::report::{Report, Share};
use super::text::{check_fraction, split_text};
use super::tokens::TokenStore;
use super::{Corpus, DEFAULT_VOCAB_SIZE, DataConfig, Dataset, OF_MODEL, TokenMeta, Tokens, shakespeare, synthetic};
use crate::error::{Error, Result};
use crate::files::{Links, path_of, read_utf8};
use crate::tokenizer::{BpeTrainer, EOS, SPECIALS, TextBytes, Tokenizer};
use std::path::{Path, PathBuf};

/// Loads the data set of `cfg`, whose paths are relative to `base_dir`. Downloads are kept in `cache_dir`. Tokens of a large
/// text lie in a file without a name in the folder for temporary files.
///
/// # Errors
/// When a key is missing or out of range, a file cannot be read, a token id exceeds the vocabulary, token file and tokenizer
/// do not match, or the text is too short to split.
pub fn load(cfg: &DataConfig, base_dir: &Path, cache_dir: &Path) -> Result<Corpus> {
    load_for(cfg, base_dir, cache_dir, None)
}

/// [`load`] for a model with a tokenizer, which the configuration calls [`OF_MODEL`].
///
/// # Errors
/// As [`load`].
pub fn load_for(cfg: &DataConfig, base_dir: &Path, cache_dir: &Path, of_model: Option<&Tokenizer>) -> Result<Corpus> {
    let given = given_tokenizer(cfg, base_dir, of_model)?;
    let choose = |train: &dyn Fn(usize) -> Result<Tokenizer>| {
        given.clone().map_or_else(|| train(cfg.vocab_size.unwrap_or(DEFAULT_VOCAB_SIZE)), Ok)
    };
    match cfg.dataset {
        Dataset::Synthetic => {
            let text = synthetic::generate(cfg.seed, synthetic::TRAIN_BYTES);
            let tokenizer = choose(&|size| Tokenizer::train_bpe(&text.train, size))?;
            Corpus::from_text("synthetic", &text.train, &text.val, tokenizer)
        }
        Dataset::Shakespeare => {
            let text = read_utf8(&shakespeare::fetch(cache_dir)?, Links::Follow, shakespeare::LENGTH)?;
            let (train, val) = split_text(&text, cfg.val_fraction)?;
            let tokenizer = choose(&|size| Tokenizer::train_bpe(train, size))?;
            Corpus::from_text("shakespeare", train, val, tokenizer)
        }
        Dataset::Text => {
            let text = TextData::open(cfg, base_dir, given)?;
            let (mut train, mut val) = (TokenStore::default(), TokenStore::default());
            let report = text.encode(&mut |side, ids| match side {
                Side::Train => train.push(ids),
                Side::Val => val.push(ids),
            })?;
            Ok(Corpus {
                name: file_name(&text.path),
                train: train.finish()?,
                val: val.finish()?,
                vocab_size: text.tokenizer.vocab_size(),
                val_bytes: Some(report.val.bytes),
                tokenizer: Some(text.tokenizer),
                report: Some(report),
            })
        }
        Dataset::Tokens => load_tokens(cfg, base_dir),
    }
}

/// Encodes the documents at `path`, as training does with validation data: all of them, in their order, with the keys `field`
/// and `special_tokens` of `cfg`. The validation part of the report describes them.
///
/// # Errors
/// When a file cannot be read, or there is no document.
pub fn load_documents(cfg: &DataConfig, path: &Path, tokenizer: &Tokenizer) -> Result<(Tokens, Report)> {
    let format = format(cfg, Some(tokenizer));
    let documents = Documents::open(path, format.clone(), cfg.val_fraction)?;
    let (mut store, mut report) = (TokenStore::default(), Report::default());
    report.split = "all documents are for validation".to_string();
    let parts = [(&documents, Split::All(Side::Val))];
    encode(&parts, cfg, &format.spellings, tokenizer, &mut report, &mut |_, ids| store.push(ids))?;
    Ok((store.finish()?, report))
}

/// Documents to be encoded, with their tokenizer.
pub(super) struct TextData<'a> {
    cfg: &'a DataConfig,
    format: Format,
    pub path: PathBuf,
    train: Documents,
    /// Validation documents, if they are separate.
    val: Option<Documents>,
    split: Split,
    said: String,
    /// Bounds that the training of the tokenizer met.
    notes: Vec<String>,
    pub tokenizer: Tokenizer,
}

impl<'a> TextData<'a> {
    /// Reads the documents of `path` and `val_path` once or twice, and makes the tokenizer if none is given.
    pub fn open(cfg: &'a DataConfig, base_dir: &Path, given: Option<Tokenizer>) -> Result<Self> {
        let path = required_path(cfg, base_dir)?;
        let format = format(cfg, given.as_ref());
        let open = |path: &Path| Documents::open(path, format.clone(), cfg.val_fraction);
        let train = open(&path)?;
        let val = cfg.val_path.as_ref().map(|path| open(&base_dir.join(path))).transpose()?;
        let (split, said) = match &cfg.val_path {
            Some(path) => (Split::All(Side::Train), format!("validation documents are those of {}", path.display())),
            None => train.split(),
        };
        let (tokenizer, mut notes) = match given {
            Some(tokenizer) => (tokenizer, Vec::new()),
            None => train_bpe(&train, split, cfg)?,
        };
        notes.extend(val.as_ref().and_then(|val| val.also_in(&train)));
        Ok(TextData { cfg, format, path, train, val, split, said, notes, tokenizer })
    }

    /// Encodes all documents.
    pub fn encode(&self, out: &mut Out<'_>) -> Result<Report> {
        let mut report = Report { split: self.said.clone(), notes: self.notes.clone(), ..Report::default() };
        let val = self.val.iter().map(|val| (val, Split::All(Side::Val)));
        let parts: Vec<_> = std::iter::once((&self.train, self.split)).chain(val).collect();
        encode(&parts, self.cfg, &self.format.spellings, &self.tokenizer, &mut report, out)?;
        if report.train.tokens == 0 || report.val.tokens == 0 {
            let what = format!("is too short to hold back {} of it for validation", self.cfg.val_fraction);
            return Err(Error::invalid(&self.path, what));
        }
        Ok(report)
    }
}

/// Trains a BPE on the training documents. Also returns the bounds that were met, in words.
pub(super) fn train_bpe(documents: &Documents, split: Split, cfg: &DataConfig) -> Result<(Tokenizer, Vec<String>)> {
    /// Bytes of a long document added at once.
    const PART: usize = 1 << 20;
    let mut trainer = BpeTrainer::new(cfg.vocab_size.unwrap_or(DEFAULT_VOCAB_SIZE))?;
    let add = if cfg.special_tokens { BpeTrainer::add_with_specials } else { BpeTrainer::add };
    let (mut text, spellings) = (String::new(), SPECIALS.map(String::from));
    documents.each("training the tokenizer", split, &mut |side, chunk| {
        match (side, chunk) {
            (Side::Val, _) => {}
            (Side::Train, Chunk::Text(chunk)) => {
                text.push_str(chunk);
                if text.len() > PART
                    && let Some(at) = cut_near(&text, text.len(), PART / 16)
                    && let Some(at) = clear_of(&text, at, &spellings)
                {
                    add(&mut trainer, &text[..at]);
                    text.drain(..at);
                }
            }
            (Side::Train, Chunk::End) => {
                add(&mut trainer, &text);
                text.clear();
            }
        }
        Ok(())
    })?;
    let notes = trainer.notes();
    Ok((trainer.finish()?, notes))
}

/// Encodes documents by their split, and adds what there is to say to `report`.
fn encode(
    parts: &[(&Documents, Split)],
    cfg: &DataConfig,
    spellings: &[String],
    tokenizer: &Tokenizer,
    report: &mut Report,
    out: &mut Out<'_>,
) -> Result<()> {
    let mut forward = |side: Side, ids: &[u32]| out(side, ids);
    let mut encoder = Encoder::new(tokenizer, cfg.special_tokens, spellings, &mut forward);
    for (documents, split) in parts {
        documents.report(report);
        documents.each("encoding", *split, &mut |side, chunk| encoder.take(side, chunk))?;
    }
    encoder.flush()?;
    (report.train, report.val) = (encoder.train, encoder.val);
    if tokenizer.eos().is_none() {
        let what = "the tokenizer has no end-of-document token: nothing marks where a document ends";
        report.notes.push(what.to_string());
    }
    if encoder.forced > 0 {
        let times = encoder.forced;
        report.notes.push(format!(
            "text was cut {times} times after 1 MiB in which no cut is free; its tokens may differ near there"
        ));
    }
    Ok(())
}

fn required_path(cfg: &DataConfig, base_dir: &Path) -> Result<PathBuf> {
    let missing = || Error::usage(format!("the `{}` data set needs a path (data.path, --data-path)", cfg.dataset));
    cfg.path.as_ref().map(|p| base_dir.join(p)).ok_or_else(missing)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// How the documents of `cfg` are read for a tokenizer, or for a BPE that is yet to be trained.
pub(super) fn format(cfg: &DataConfig, tokenizer: Option<&Tokenizer>) -> Format {
    let spelling = |t: &Tokenizer, id| t.token_bytes(id).and_then(|bytes| String::from_utf8(bytes).ok());
    let spellings = match tokenizer {
        None => SPECIALS.map(String::from).to_vec(),
        Some(t) => (0..t.vocab_size() as u32).filter(|id| t.is_special(*id)).filter_map(|id| spelling(t, id)).collect(),
    };
    let end = match tokenizer {
        None => Some(EOS.to_string()),
        Some(t) => t.eos().and_then(|eos| spelling(t, eos)),
    };
    Format { field: cfg.field.clone(), end: end.filter(|_| cfg.special_tokens), spellings }
}

/// The tokenizer that a configuration names, unless it is to be trained. `of_model` is that of the model.
pub(super) fn given_tokenizer(
    cfg: &DataConfig,
    base_dir: &Path,
    of_model: Option<&Tokenizer>,
) -> Result<Option<Tokenizer>> {
    let tokenizer = match cfg.tokenizer.as_str() {
        "bpe" => return Ok(None),
        "bytes" => Tokenizer::bytes(),
        OF_MODEL => {
            let none = "data.tokenizer = model: there is no model that it could be of; --init MODEL begins with one";
            of_model.cloned().ok_or_else(|| Error::usage(none))?
        }
        path => Tokenizer::load(&base_dir.join(path_of(path)))?,
    };
    match cfg.vocab_size {
        Some(limit) if tokenizer.vocab_size() > limit => Err(Error::usage(format!(
            "vocab_size is {limit} (data.vocab_size), but the tokenizer `{}` has {} tokens",
            cfg.tokenizer,
            tokenizer.vocab_size()
        ))),
        _ => Ok(Some(tokenizer)),
    }
}

fn load_tokens(cfg: &DataConfig, base_dir: &Path) -> Result<Corpus> {
    let path = required_path(cfg, base_dir)?;
    let (tokens, meta) = Tokens::open(&path)?;
    let Some(vocab_size) = cfg.vocab_size.or(meta.as_ref().map(|m| m.vocab_size)) else {
        let what = format!(
            "{} has no .json description beside it, so vocab_size must be set (data.vocab_size)",
            path.display()
        );
        return Err(Error::usage(what));
    };
    let (tokenizer, from) = tokenizer_beside(cfg, base_dir, &path)?;
    if let Some(larger) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&size| size > vocab_size) {
        let of = if cfg.vocab_size.is_some() { "data.vocab_size".into() } else { described(&path) };
        let what = format!("vocab_size is {vocab_size} ({of}), but the tokenizer `{from}` has {larger} tokens");
        return Err(Error::usage(what));
    }
    check_tokens(&tokens, meta.as_ref(), &path, vocab_size, tokenizer.as_ref())?;
    let mut report = Report { files: 1, ..Report::default() };
    let (train, val, meta_bytes) = match &cfg.val_path {
        Some(val_path) => {
            let val_path = base_dir.join(val_path);
            let (val, meta) = Tokens::open(&val_path)?;
            check_tokens(&val, meta.as_ref(), &val_path, vocab_size, tokenizer.as_ref())?;
            report.files = 2;
            report.notes.extend(also_in(&[&val_path], &[&path]));
            report.split = format!("validation tokens are those of {}", val_path.display());
            (tokens, val, meta.map(|m| m.bytes))
        }
        None => {
            check_fraction(cfg.val_fraction)?;
            let cut = cut_tokens(&tokens, cfg.val_fraction, tokenizer.as_ref().and_then(Tokenizer::eos))?;
            if cut.at == 0 || cut.at == tokens.len() {
                let what = format!("{} tokens are too few to hold back {} of them", tokens.len(), cfg.val_fraction);
                return Err(Error::invalid(&path, what));
            }
            let how = if cut.whole { "cut at the end of a document" } else { "which may cut a document" };
            report.split = format!("the last {} of the tokens are for validation, {how}", cfg.val_fraction);
            let (train, val) = tokens.split_at(cut.at);
            (train, val, None)
        }
    };
    let eos = tokenizer.as_ref().and_then(Tokenizer::eos);
    let share = |tokens: &Tokens| -> Result<Share> {
        let (mut documents, mut text) = (0, tokenizer.as_ref().map(TextBytes::new));
        tokens.each(|ids| {
            documents += ids.iter().filter(|id| Some(**id) == eos).count() as u64;
            text.iter_mut().for_each(|text| text.add(ids));
        })?;
        Ok(Share { documents, bytes: text.map_or(0, TextBytes::finish), tokens: tokens.len() as u64 })
    };
    (report.train, report.val) = (share(&train)?, share(&val)?);
    let val_bytes = meta_bytes.or(tokenizer.is_some().then_some(report.val.bytes));
    report.val.bytes = val_bytes.unwrap_or(0);
    if tokenizer.is_none() {
        let what = "without a tokenizer beside the token file, documents and bytes of text are not known";
        report.notes.push(what.to_string());
    }
    Ok(Corpus { name: file_name(&path), train, val, vocab_size, val_bytes, tokenizer, report: Some(report) })
}

/// Where tokens are cut, and whether that cuts no document.
struct Cut {
    at: usize,
    whole: bool,
}

/// Where to cut `ids` to hold back `fraction` of them: after an end-of-document token, the last one before that place unless
/// this would give more than half to validation, or else the first one after it.
fn cut_tokens(tokens: &Tokens, fraction: f64, eos: Option<u32>) -> Result<Cut> {
    let target = (tokens.len() as f64 * (1.0 - fraction)) as usize;
    let Some(eos) = eos else { return Ok(Cut { at: target, whole: false }) };
    let after = |at: usize| Ok(Cut { at, whole: true });
    for block in tokens.blocks((target / 2).saturating_sub(1)..target).rev() {
        let (at, ids) = block?;
        if let Some(i) = ids.iter().rposition(|id| *id == eos) {
            return after(at + i + 1);
        }
    }
    for block in tokens.blocks(target..tokens.len().saturating_sub(1)) {
        let (at, ids) = block?;
        if let Some(i) = ids.iter().position(|id| *id == eos) {
            return after(at + i + 1);
        }
    }
    Ok(Cut { at: target, whole: false })
}

/// The tokenizer that a configuration names, and its name. For `bpe` it is the `tokenizer.json` beside the token file, if one
/// exists.
fn tokenizer_beside(cfg: &DataConfig, base_dir: &Path, bin: &Path) -> Result<(Option<Tokenizer>, String)> {
    let path = match cfg.tokenizer.as_str() {
        "bytes" => return Ok((Some(Tokenizer::bytes()), "bytes".to_string())),
        "bpe" => bin.with_file_name("tokenizer.json"),
        path => base_dir.join(path_of(path)),
    };
    let missing = cfg.tokenizer == "bpe" && path.symlink_metadata().is_err();
    let tokenizer = if missing { None } else { Some(Tokenizer::load(&path)?) };
    Ok((tokenizer, path.display().to_string()))
}

/// The name of the description of a token file.
fn described(bin: &Path) -> String {
    TokenMeta::path(bin).display().to_string()
}

/// Checks that the tokens of the file `bin`, and its description, are those of a vocabulary and a tokenizer.
fn check_tokens(
    tokens: &Tokens,
    meta: Option<&TokenMeta>,
    bin: &Path,
    vocab_size: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    if let Some(meta) = meta {
        if meta.vocab_size > vocab_size {
            let (of, more) = (described(bin), meta.vocab_size);
            let what = format!("was made with a vocabulary of {more} ({of}), more than vocab_size {vocab_size}");
            return Err(Error::invalid(bin, what));
        }
        if let Some(hash) = tokenizer.map(Tokenizer::hash).filter(|hash| *hash != meta.tokenizer_hash) {
            let what = format!("was made by the tokenizer {}, but the given one is {hash}", meta.tokenizer_hash);
            return Err(Error::invalid(bin, what));
        }
    }
    tokens.check(vocab_size, bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_after_a_document() {
        let cut = |ids: &[u32], fraction| {
            let Cut { at, whole } = cut_tokens(&ids.to_vec().into(), fraction, Some(9)).unwrap();
            (at, whole)
        };
        assert_eq!(cut(&[1, 9, 1, 9, 1, 9, 1, 1, 1, 9], 0.1), (6, true));
        assert_eq!(cut(&[1, 9, 1, 1, 1, 1, 1, 1, 9, 1], 0.2), (9, true));
        assert_eq!(cut(&[1, 9, 1, 1, 1, 1, 1, 1, 1, 9], 0.2), (8, false));
        assert_eq!(cut(&[1, 1, 1, 1], 0.5), (2, false));
        assert_eq!(cut_tokens(&vec![1, 9, 1, 1].into(), 0.25, None).unwrap().at, 3);
    }
}
