//! Tokenizers: text to token ids and back, by raw bytes or by any `tokenizer.json` of the Hugging Face `tokenizers` crate.
//!
//! Trained tokenizers are byte-level BPE (Sennrich et al. 2016, Radford et al. 2019). The pre-tokens are those of GPT-2's
//! expression, with every digit split off. Ids 0..6 are the [`SPECIALS`], the next 256 are the bytes, so no text is out of
//! vocabulary. The raw byte tokenizer has ids 0..256 for bytes and the specials after them; its JSON form is a byte-level BPE
//! without merges, which other loaders can read.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

#[cfg(feature = "native")]
mod bounded;
#[cfg(feature = "native")]
mod bpe;
mod byte_level;
mod decode;
mod letters;
#[cfg(feature = "native")]
mod queue;
mod spellings;
#[cfg(feature = "native")]
mod split;
#[cfg(feature = "native")]
mod train;
#[cfg(feature = "native")]
mod words;

#[cfg(feature = "native")]
pub(crate) use native::TextBytes;
#[cfg(feature = "native")]
pub use train::BpeTrainer;

pub(crate) use decode::{Decoder, overlap};
#[cfg(feature = "native")]
pub(crate) use spellings::Spellings;

/// The reader of a `tokenizer.json`: the `tokenizers` crate, or our own byte-level BPE in builds for which it is too large.
#[cfg(feature = "native")]
use bpe::Json;
#[cfg(not(feature = "native"))]
use byte_level::ByteLevel as Json;

/// Start of a text.
pub const BOS: &str = "<|bos|>";
/// End of a document.
pub const EOS: &str = "<|eos|>";
/// Opens the system turn of a chat.
pub const SYSTEM: &str = "<|system|>";
/// Opens a user turn.
pub const USER: &str = "<|user|>";
/// Opens an assistant turn.
pub const ASSISTANT: &str = "<|assistant|>";
/// Ends a turn.
pub const END: &str = "<|end|>";

/// The special tokens of the tokenizers made by this crate, in the order of their ids.
pub const SPECIALS: [&str; 6] = [BOS, EOS, SYSTEM, USER, ASSISTANT, END];

/// The largest vocabulary, so all ids are below it. Tables are allocated by the largest id, which a damaged file must not
/// be able to choose.
pub const MAX_VOCAB: usize = 1 << 24;

/// Most bytes of a `tokenizer.json` that is read from a file.
#[cfg(feature = "native")]
pub(crate) const MAX_JSON: u64 = 64 << 20;

/// Most values of a `tokenizer.json`. One takes 32 bytes in memory, and an object as much as [`OBJECT`] of them.
const MOST_VALUES: usize = 1 << 23;
const OBJECT: usize = 16;

/// Names of the end-of-document token in common tokenizers; the first match counts.
const EOS_NAMES: [&str; 6] = [EOS, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]"];

/// Names of the token that ends an assistant turn in common chat formats.
const TURN_ENDS: [&str; 4] = [END, "<|im_end|>", "<|eot_id|>", "<end_of_turn>"];

/// A tokenizer. It is immutable and can be shared between threads.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Bytes,
    Json(Box<Json>),
}

impl Tokenizer {
    /// The raw byte tokenizer: ids 0..256 are bytes, the [`SPECIALS`] follow.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// Reads the text of a `tokenizer.json`. Without the `native` feature it must be a byte-level BPE.
    ///
    /// # Errors
    /// When it is not valid or not supported, cannot encode every text, or has an id beyond [`MAX_VOCAB`].
    pub fn from_json(json: &str) -> Result<Self> {
        Self::parse(json).map_err(|what| Error::usage(format!("not a usable tokenizer: {what}")))
    }

    fn parse(json: &str) -> Result<Self, String> {
        if json.trim() == bytes_json() {
            return Ok(Self::bytes());
        }
        Ok(Self { kind: Kind::Json(Box::new(Json::parse(json)?)) })
    }

    /// The text of the `tokenizer.json`, always the same for the same tokenizer.
    pub fn to_json(&self) -> String {
        match &self.kind {
            Kind::Bytes => bytes_json().to_string(),
            Kind::Json(json) => json.to_json(),
        }
    }

    /// The token ids of `text`, which is anybody's: the spelling of a special token stays text. No token is added at either
    /// end.
    ///
    /// # Errors
    /// When the tokenizer would make the text more than 16 times as long, takes too long for its length, or is damaged.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    /// The token ids of `text`, in which the spelling of a special token is that token: a rendered chat template, say.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    fn ids(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Bytes if specials => Ok(encode_bytes(text)),
            Kind::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Kind::Json(json) => json
                .encode(text, specials)
                .map_err(|e| Error::usage(format!("the tokenizer cannot encode the text: {e}"))),
        }
    }

    /// The text of `ids`, without special tokens. Invalid UTF-8 becomes U+FFFD; unknown ids are skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_by(Decoder::new(self, false), ids)
    }

    /// The text of `ids`, in which special tokens are spelled.
    pub fn decode_with_specials(&self, ids: &[u32]) -> String {
        self.decode_by(Decoder::new(self, true), ids)
    }

    fn decode_by(&self, mut decoder: Decoder, ids: &[u32]) -> String {
        let mut text: String = ids.iter().map(|&id| decoder.push(self, id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The bytes of one token, which may be part of a character. A special token is spelled. If the tokenizer is not
    /// byte-level, these are the bytes of a text of this token alone. `None` for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Bytes => match id {
                0..256 => Some(vec![id as u8]),
                _ => SPECIALS.get(id as usize - 256).map(|s| s.as_bytes().to_vec()),
            },
            #[cfg(feature = "native")]
            Kind::Json(json) if !json.byte_level => {
                json.token(id).map(|_| self.decode_with_specials(&[id]).into_bytes())
            }
            Kind::Json(json) => json.token_bytes(id),
        }
    }

    /// Number of ids: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 256 + SPECIALS.len(),
            Kind::Json(json) => json.vocab_size(),
        }
    }

    /// The id of a token by its spelling in the vocabulary, such as `<|user|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => SPECIALS.iter().position(|&s| s == token).map(|i| 256 + i as u32),
            Kind::Json(json) => json.token_id(token),
        }
    }

    /// Whether `id` is a control token (such as the [`SPECIALS`]) rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Bytes => (256..self.vocab_size() as u32).contains(&id),
            Kind::Json(json) => json.is_special(id),
        }
    }

    /// Whether `id` is a control token that a text gives only by its spelling. The model gives its unknown token for any
    /// text that it has no token for.
    pub(crate) fn is_spelled(&self, id: u32) -> bool {
        #[cfg(feature = "native")]
        if let Kind::Json(json) = &self.kind
            && json.unknown == Some(id)
        {
            return false;
        }
        self.is_special(id)
    }

    /// The id of the end-of-document token, if the vocabulary has one.
    pub fn eos(&self) -> Option<u32> {
        EOS_NAMES.iter().find_map(|name| self.token_id(name))
    }

    /// Ids at which generation stops: the ends of a document and of a turn.
    pub fn stop_ids(&self) -> Vec<u32> {
        self.eos().into_iter().chain(TURN_ENDS.iter().filter_map(|name| self.token_id(name))).collect()
    }

    /// CRC-32C of [`Tokenizer::to_json`] in hexadecimal, by which checkpoints and token files identify their tokenizer.
    pub fn hash(&self) -> String {
        format!("{:08x}", crc32c::crc32c(self.to_json().as_bytes()))
    }
}

/// Parses a `tokenizer.json`. One of many small values would take many times its length in memory.
pub(crate) fn parse_json(json: &str) -> Result<Value, String> {
    let values = json.bytes().map(|byte| match byte {
        b'{' => OBJECT,
        b',' | b'[' => 1,
        _ => 0,
    });
    if values.sum::<usize>() > MOST_VALUES {
        return Err(format!("it has more than {MOST_VALUES} values"));
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}

/// Checks the largest id of a vocabulary.
fn check_ids(largest: u64, tokens: usize) -> Result<(), String> {
    // A small file may leave out some ids, but not choose how large a table is.
    let most = MAX_VOCAB.min(8 * tokens + (1 << 16)) as u64 - 1;
    if largest > most {
        return Err(format!("it has id {largest}, but the largest possible for its {tokens} tokens is {most}"));
    }
    Ok(())
}

#[cfg(feature = "native")]
mod native {
    use super::{BpeTrainer, Decoder, Kind, Tokenizer};
    use crate::error::{Error, Result};
    use crate::files::{self, Links};
    use std::path::Path;

    /// Counts what [`Tokenizer::text_bytes`] does, of ids that come in parts.
    pub(crate) struct TextBytes<'a> {
        tokenizer: &'a Tokenizer,
        /// Bytes of each token of a byte-level tokenizer.
        lengths: Vec<u64>,
        /// The text so far, for another tokenizer.
        text: Option<Decoder>,
        bytes: u64,
    }

    impl<'a> TextBytes<'a> {
        pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
            let by_text = matches!(&tokenizer.kind, Kind::Json(json) if !json.byte_level);
            let text = by_text.then(|| Decoder::new(tokenizer, false));
            let bytes =
                |id| tokenizer.token_bytes(id).filter(|_| !tokenizer.is_special(id)).map_or(0, |b| b.len() as u64);
            let ids = if by_text { 0 } else { tokenizer.vocab_size() as u32 };
            TextBytes { tokenizer, lengths: (0..ids).map(bytes).collect(), text, bytes: 0 }
        }

        pub(crate) fn add(&mut self, ids: &[u32]) {
            let Some(text) = &mut self.text else {
                self.bytes += ids.iter().filter_map(|&id| self.lengths.get(id as usize)).sum::<u64>();
                return;
            };
            for &id in ids {
                let more = if self.tokenizer.is_special(id) {
                    std::mem::replace(text, Decoder::new(self.tokenizer, false)).finish()
                } else {
                    text.push(self.tokenizer, id)
                };
                self.bytes += more.len() as u64;
            }
        }

        pub(crate) fn finish(self) -> u64 {
            self.bytes + self.text.map_or(0, |mut text| text.finish().len() as u64)
        }
    }

    impl Tokenizer {
        /// Trains a byte-level BPE on `text`, in which the special tokens are tokens: no other token spans them. The
        /// vocabulary has at most `vocab_size` tokens. It has fewer if training ends early because no pair of tokens occurs
        /// twice.
        ///
        /// # Errors
        /// When `text` is empty or `vocab_size` is below 262 (256 bytes and the special tokens).
        pub fn train_bpe(text: &str, vocab_size: usize) -> Result<Self> {
            let mut trainer = BpeTrainer::new(vocab_size)?;
            trainer.add_with_specials(text);
            trainer.finish()
        }

        /// The first byte position of `text` from `from` on (above 0) at which it may be cut: the ids of the two parts are
        /// those of the whole. `None` if there is none before the end.
        pub fn cut(&self, text: &str, from: usize) -> Option<usize> {
            match &self.kind {
                Kind::Bytes => (from.max(1)..text.len()).find(|&at| text.is_char_boundary(at)),
                Kind::Json(json) => json.cut(text, from),
            }
        }

        /// Bytes of the text of `ids`, in which each special token ends a text and counts nothing. Ids of a byte-level
        /// tokenizer may begin and end within a character.
        pub fn text_bytes(&self, ids: &[u32]) -> u64 {
            let mut count = TextBytes::new(self);
            count.add(ids);
            count.finish()
        }

        /// Reads a `tokenizer.json` file.
        ///
        /// # Errors
        /// When the file cannot be read, or as [`Tokenizer::from_json`].
        pub fn load(path: &Path) -> Result<Self> {
            let json = files::read_utf8(path, Links::Follow, super::MAX_JSON)?;
            Self::parse(&json).map_err(|what| Error::invalid(path, format!("not a usable tokenizer.json: {what}")))
        }

        /// Writes a `tokenizer.json` file atomically.
        ///
        /// # Errors
        /// When the file cannot be written.
        pub fn save(&self, path: &Path) -> Result<()> {
            files::write_atomic(path, self.to_json().as_bytes())
        }
    }
}

/// Splits `text` at special tokens into pairs: plain text, and the special token after it (an index into [`SPECIALS`]). The
/// last pair has none.
fn split_specials(text: &str) -> Vec<(&str, Option<usize>)> {
    let (mut parts, mut rest, mut from) = (Vec::new(), text, 0);
    while let Some(at) = rest[from..].find("<|").map(|i| i + from) {
        match SPECIALS.iter().position(|s| rest[at..].starts_with(s)) {
            Some(special) => {
                parts.push((&rest[..at], Some(special)));
                (rest, from) = (&rest[at + SPECIALS[special].len()..], 0);
            }
            None => from = at + 2,
        }
    }
    parts.push((rest, None));
    parts
}

fn encode_bytes(text: &str) -> Vec<u32> {
    let mut ids = Vec::with_capacity(text.len());
    for (plain, special) in split_specials(text) {
        ids.extend(plain.bytes().map(u32::from));
        ids.extend(special.map(|s| 256 + s as u32));
    }
    ids
}

/// GPT-2's printable character for a byte: the byte itself if it is a printing Latin-1 character, else one from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printing = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printing(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printing(b)).count() as u32;
    char::from_u32(0x100 + before).expect("below U+0200")
}

/// The raw byte tokenizer as a byte-level BPE without merges.
fn bytes_json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let vocab = (0..=255u8).map(|b| (byte_char(b).to_string(), b.into())).collect();
        let added: Vec<_> = SPECIALS.iter().enumerate().map(|(i, content)| (256 + i, *content, true)).collect();
        byte_level_json(vocab, &[], &added, (level(false), false))
    });
    &JSON
}

pub(crate) use byte_level::GPT2;
/// The expression of Llama 3.
pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The expression of Qwen 2.
pub(crate) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A byte-level BPE as the text of a `tokenizer.json`. Added tokens are (id, content, is a control token). With `ignore_merges` a word
/// that is a token is left whole.
pub(crate) fn byte_level_json(
    vocab: Map<String, Value>,
    merges: &[&str],
    added: &[(usize, &str, bool)],
    (pre_tokenizer, ignore_merges): (Value, bool),
) -> String {
    let added = added.iter().map(|(id, content, special)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special})
    });
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": level(false),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges}})
    .to_string()
}

/// The `ByteLevel` component of a `tokenizer.json`. If `cuts`, it splits text by GPT-2's expression.
pub(crate) fn level(cuts: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": cuts})
}

#[cfg(test)]
mod tests;
