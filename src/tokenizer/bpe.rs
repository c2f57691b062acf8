//! Reads `tokenizer.json` and trains tokenizers with the `tokenizers` crate.
//!
//! Long texts are encoded in pieces on all cores. A piece ends after a single newline between two characters that are not
//! white space. No pre-token of the byte-level expression spans such a position, so the ids equal those of the whole text.

use super::decode::steps::{Step, steps};
use super::{SPECIALS, byte_char, split_specials};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::LazyLock;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, ProgressFormat,
    TokenizerBuilder,
};

/// Least bytes of a piece, except the last.
const PIECE: usize = 1 << 15;

/// A pair of tokens seen fewer times than this is never merged.
const MIN_FREQUENCY: u64 = 2;

pub(super) static CHAR_BYTE: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255u8).map(|b| (byte_char(b), b)).collect());

/// A loaded `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub(super) inner: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer, // for which the spelling of a special token is text
    vocab_size: usize,
    pub(super) byte_level: bool, // tokens are spelled with `byte_char`
    pub(super) steps: Vec<Step>, // how other tokens become text
    splits: bool,                // encoding in pieces gives the same ids as encoding the whole text
}

impl Json {
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let mut inner = read(json)?;
        inner.with_padding(None).with_truncation(None).map_err(|e| e.to_string())?;
        let largest = inner.get_vocab(true).into_values().max().ok_or("its vocabulary is empty")?;
        if largest as usize >= super::MAX_VOCAB {
            return Err(format!("it has id {largest}, but the largest possible is {}", super::MAX_VOCAB - 1));
        }
        // No vocabulary contains a character of the private-use area, so a model that cannot encode every text fails here.
        inner.encode_fast("a 1\u{10fffd}\n", false).map_err(|e| format!("it cannot encode every text: {e}"))?;
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let steps = steps(inner.get_decoder());
        let splits = byte_level && splits_at_newlines(&inner);
        let mut plain = inner.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { inner, plain, vocab_size: largest as usize + 1, byte_level, steps, splits })
    }

    pub(super) fn to_json(&self) -> String {
        self.inner.to_string(false).expect("a tokenizer that was read can be written")
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Vec<u32> {
        let inner = if specials { &self.inner } else { &self.plain };
        let pieces = if self.splits { pieces(text) } else { vec![text] };
        if let [piece] = pieces[..] {
            return inner.encode_fast(piece, false).map(|e| e.get_ids().to_vec()).unwrap_or_default();
        }
        // `parse` encoded a character that no vocabulary contains, so no text makes the encoder fail.
        let encodings = inner.encode_batch_fast(pieces, false).unwrap_or_default();
        encodings.iter().flat_map(|e| e.get_ids().iter().copied()).collect()
    }

    pub(super) fn cut(&self, text: &str, from: usize) -> Option<usize> {
        if self.splits { lone_newline(text, from.max(2)) } else { None }
    }

    /// The token as the vocabulary spells it.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes of a token of a byte-level vocabulary.
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some(added) = self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
            return Some(added.content.clone().into_bytes());
        }
        let token = self.token(id)?;
        let bytes: Option<Vec<u8>> = token.chars().map(|c| CHAR_BYTE.get(&c).copied()).collect();
        Some(bytes.unwrap_or_else(|| token.into_bytes()))
    }

    pub(super) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        // A vocabulary may have the same token twice.
        added.get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
            || self.token(id).is_some_and(|token| added.is_special_token(&token))
    }
}

/// Parses with the `tokenizers` crate. That panics at some inputs, such as a decoder that is not JSON or a broken table of
/// normalisations; panics become errors.
fn read(json: &str) -> Result<tokenizers::Tokenizer, String> {
    serde_json::from_str::<serde_json::Value>(json).map_err(|e| e.to_string())?;
    std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|e| e.to_string()))
        .unwrap_or_else(|_| Err("one of its parts is damaged".to_string()))
}

/// Whether no token can span a single newline: the byte-level expression splits the text, and no normalizer changes it
/// before.
fn splits_at_newlines(tokenizer: &tokenizers::Tokenizer) -> bool {
    let cuts =
        |p: &PreTokenizerWrapper| matches!(p, PreTokenizerWrapper::ByteLevel(b) if b.use_regex && !b.add_prefix_space);
    let pre_tokenizer = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(steps)) => {
            steps.as_ref().iter().all(|p| cuts(p) || matches!(p, PreTokenizerWrapper::Digits(_)))
                && steps.as_ref().iter().any(cuts)
        }
        Some(p) => cuts(p),
        None => false,
    };
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    pre_tokenizer
        && tokenizer.get_normalizer().is_none()
        && !added.values().any(|t| t.lstrip || t.content.contains('\n'))
}

/// Splits `text` after single newlines into pieces of about [`PIECE`] bytes.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::with_capacity(text.len() / PIECE + 1), text);
    while rest.len() > PIECE
        && let Some(cut) = lone_newline(rest, PIECE)
    {
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// The first byte position from `from` on that follows a newline between two graphic ASCII characters.
fn lone_newline(text: &str, from: usize) -> Option<usize> {
    let b = text.as_bytes();
    (from..b.len()).find(|&i| b[i - 1] == b'\n' && b[i - 2].is_ascii_graphic() && b[i].is_ascii_graphic())
}

/// Refuses a vocabulary without room for the bytes and the special tokens.
pub(super) fn check_size(vocab_size: usize) -> Result<()> {
    let smallest = SPECIALS.len() + 256;
    if vocab_size < smallest {
        return Err(Error::usage(format!(
            "a vocabulary of {vocab_size} is too small: 256 bytes and {} special tokens need at least {smallest}",
            SPECIALS.len()
        )));
    }
    Ok(())
}

/// Trains on `text` and returns the `tokenizer.json`. Special tokens in the text separate pre-tokens and are not trained on.
pub(super) fn train(text: &str, vocab_size: usize) -> Result<String> {
    if text.is_empty() {
        return Err(Error::usage("cannot train a tokenizer on an empty text"));
    }
    let level = ByteLevel::new(false, true, true);
    let split = Sequence::new(vec![Digits::new(true).into(), level.into()]);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(split.into()))
            .with_post_processor(None)
            .with_decoder(Some(level.into()))
            .build()
            .map_err(training_error)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(MIN_FREQUENCY)
        .show_progress(false)
        .progress_format(ProgressFormat::Silent)
        .special_tokens(SPECIALS.iter().map(|&s| AddedToken::from(s, true)).collect())
        .initial_alphabet((0..=255).map(byte_char).collect())
        .build();
    let plain: Vec<&str> = split_specials(text).into_iter().flat_map(|(plain, _)| pieces(plain)).collect();
    tokenizer.train(&mut trainer, plain.into_iter()).map_err(training_error)?;
    tokenizer.to_string(false).map_err(training_error)
}

fn training_error(e: tokenizers::Error) -> Error {
    Error::usage(format!("training the tokenizer failed: {e}"))
}
