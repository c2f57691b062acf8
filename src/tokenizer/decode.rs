//! Decodes tokens as they come.

use super::{Kind, Tokenizer};

#[cfg(feature = "native")]
pub(super) mod steps;

/// A decoder of the tokens of one text. All that it returns, joined, is what decoding these tokens at once gives. It holds
/// back only what a later token can still change.
#[derive(Clone)]
pub(crate) struct Decoder {
    /// Whether special tokens are spelled; if not, they are skipped.
    specials: bool,
    state: State,
}

#[derive(Clone)]
enum State {
    Bytes(Utf8),
    #[cfg(feature = "native")]
    Steps(Vec<steps::Step>),
}

impl Decoder {
    /// A decoder at the start of a text of this tokenizer.
    pub(crate) fn new(tokenizer: &Tokenizer, specials: bool) -> Decoder {
        let state = match &tokenizer.kind {
            #[cfg(feature = "native")]
            Kind::Json(json) if !json.byte_level => State::Steps(json.steps.clone()),
            _ => State::Bytes(Utf8::default()),
        };
        Decoder { specials, state }
    }

    /// The text that is certain after one more token of the tokenizer. An unknown id adds nothing.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !self.specials && tokenizer.is_special(id) {
            return String::new();
        }
        match (&mut self.state, &tokenizer.kind) {
            #[cfg(feature = "native")]
            (State::Steps(steps), Kind::Json(json)) => {
                json.token(id).map_or_else(String::new, |token| steps::run(steps, vec![token], false))
            }
            #[cfg(feature = "native")]
            (State::Steps(_), Kind::Bytes) => String::new(),
            (State::Bytes(bytes), _) => bytes.push(&tokenizer.token_bytes(id).unwrap_or_default()),
        }
    }

    /// The rest of the text.
    pub(crate) fn finish(&mut self) -> String {
        match &mut self.state {
            State::Bytes(bytes) => bytes.finish(),
            #[cfg(feature = "native")]
            State::Steps(steps) => steps::run(steps, Vec::new(), true),
        }
    }
}

/// Bytes at the end of a text that are not a whole character yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Utf8(Vec<u8>);

impl Utf8 {
    /// The text up to the last character that is whole. Bytes that cannot become one are U+FFFD.
    fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend(bytes);
        let whole = whole_characters(&self.0);
        String::from_utf8_lossy(&self.0.drain(..whole).collect::<Vec<_>>()).into_owned()
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Length of the longest prefix of `bytes` that ends with a whole character. Bytes that cannot become one count as one.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(_) => return bytes.len(),
            Err(e) => match e.error_len() {
                Some(bad) => at += e.valid_up_to() + bad,
                None => return at + e.valid_up_to(),
            },
        }
    }
    at
}

/// Length in bytes of the longest end of `text` with which `pattern` may begin and go on.
pub(crate) fn overlap(text: &str, pattern: &str) -> usize {
    let mut ends = pattern.char_indices().map(|(at, _)| at).rev();
    ends.find(|&end| text.ends_with(&pattern[..end])).unwrap_or(0)
}
