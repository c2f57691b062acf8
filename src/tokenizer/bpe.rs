//! Reads `tokenizer.json` with the `tokenizers` crate.
//!
//! A byte-level BPE is encoded by our own code, all others by the crate. Long texts are encoded in pieces on all cores, cut
//! where no pre-token ends otherwise, so the ids equal those of the whole text.

use super::bounded::Bounded;
use super::byte_char;
use super::byte_level::ByteLevel;
use super::decode::steps::{Step, steps};
use super::split::{self, Ends};
use crate::error::caught;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;
use tokenizers::{AddedVocabulary, DecoderWrapper};

/// Least bytes of a piece, except the last.
const PIECE: usize = 1 << 15;

pub(super) static CHAR_BYTE: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255u8).map(|b| (byte_char(b), b)).collect());

/// A loaded `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) encoder: Encoder,
    vocab_size: usize,
    pub(super) byte_level: bool, // tokens are spelled with `byte_char`
    pub(super) steps: Vec<Step>, // how other tokens become text
}

/// Who encodes.
#[derive(Clone, Debug)]
pub(super) enum Encoder {
    /// Our own code, and where it may cut texts, if that is known.
    Ours(Box<ByteLevel>, Option<Ends>),
    /// The crate. For these added tokens the spelling of a special one is text.
    Crate(Box<(Bounded, AddedVocabulary)>),
}

impl Json {
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let (value, bounded, mut inner) = read(json)?;
        inner.with_padding(None).with_truncation(None).map_err(|e| e.to_string())?;
        let vocab = inner.get_vocab(true);
        let largest = *vocab.values().max().ok_or("its vocabulary is empty")?;
        super::check_ids(largest.into(), vocab.len())?;
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let steps = steps(inner.get_decoder());
        let encoder = ours(&value, &inner).unwrap_or_else(|| {
            let mut plain = inner.get_added_vocabulary().clone();
            plain.set_encode_special_tokens(true);
            Encoder::Crate(Box::new((bounded, plain)))
        });
        let json = Self { inner, encoder, vocab_size: largest as usize + 1, byte_level, steps };
        // No vocabulary contains a character of the private-use area, so a model that cannot encode every text fails here.
        json.encode("a 1\u{10fffd}\n", true).map_err(|e| format!("it cannot encode every text: {e}"))?;
        Ok(json)
    }

    pub(super) fn to_json(&self) -> String {
        self.inner.to_string(false).expect("a tokenizer that was read can be written")
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, String> {
        match &self.encoder {
            Encoder::Ours(ours, _) => match &split::pieces(text, PIECE, |text, from| self.cut(text, from))[..] {
                [piece] => ours.encode(piece, specials),
                pieces => {
                    let ids = pieces.into_par_iter().map(|piece| ours.encode(piece, specials));
                    Ok(ids.collect::<Result<Vec<_>, _>>()?.concat())
                }
            },
            Encoder::Crate(both) => {
                let (bounded, plain) = &**both;
                let added = if specials { self.inner.get_added_vocabulary() } else { plain };
                bounded.encode(text, added, &self.inner)
            }
        }
    }

    pub(super) fn cut(&self, text: &str, from: usize) -> Option<usize> {
        let Encoder::Ours(ours, Some(ends)) = &self.encoder else { return None };
        ends.cuts(text, from).find(|&at| !ours.added_spans(text, at))
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
/// normalisations.
fn read(json: &str) -> Result<(Value, Bounded, tokenizers::Tokenizer), String> {
    let value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let bounded = Bounded::new(&value)?;
    let tokenizer = caught(|| tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|e| e.to_string()));
    let tokenizer = tokenizer.unwrap_or_else(|_| Err("one of its parts is damaged".to_string()))?;
    Ok((value, bounded, tokenizer))
}

/// Our own encoder, if it does all that this tokenizer needs.
fn ours(json: &Value, inner: &tokenizers::Tokenizer) -> Option<Encoder> {
    let mut ours = ByteLevel::new(json, split::cuts(&json["pre_tokenizer"]).ok()?).ok()?;
    ours.nfc = match &json["normalizer"] {
        Value::Null => false,
        normalizer => normalizer["type"] == "NFC" && !ours.added.iter().any(|a| a.normalized),
    };
    // The crate may give an added token another id than the file says.
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let same = ours.added.iter().all(|a| added.get(&a.id).is_some_and(|t| t.content == a.content));
    let does_all = same && added.len() == ours.added.len() && ours.nfc != json["normalizer"].is_null();
    let ends = Ends::new(&ours.cuts, ours.nfc);
    does_all.then(|| Encoder::Ours(Box::new(ours), ends))
}
