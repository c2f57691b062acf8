//! Decodes tokens as they come.

#[cfg(feature = "native")]
pub(super) mod steps;

#[cfg(feature = "native")]
use super::Kind;
use super::Tokenizer;

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
    pub(crate) fn new(
        #[cfg_attr(not(feature = "native"), expect(unused_variables, reason = "all is bytes"))] tokenizer: &Tokenizer,
        specials: bool,
    ) -> Decoder {
        #[cfg(feature = "native")]
        if let Kind::Json(json) = &tokenizer.kind
            && !json.byte_level
        {
            return Decoder { specials, state: State::Steps(json.steps.clone()) };
        }
        Decoder { specials, state: State::Bytes(Utf8::default()) }
    }

    /// The text that is certain after one more token of the tokenizer. An unknown id adds nothing.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !self.specials && tokenizer.is_special(id) {
            return String::new();
        }
        match &mut self.state {
            State::Bytes(bytes) => bytes.push(&tokenizer.token_bytes(id).unwrap_or_default()),
            #[cfg(feature = "native")]
            State::Steps(steps) => {
                let token = match &tokenizer.kind {
                    Kind::Json(json) => json.token(id),
                    Kind::Bytes => None,
                };
                steps::run(steps, Vec::from_iter(token), false)
            }
        }
    }

    /// Leaves out what it holds back now, if that stays as it is: a text before has shown it.
    pub(crate) fn skip_held(&mut self) {
        #[cfg(feature = "native")]
        if let State::Steps(steps) = &mut self.state {
            let held = steps::run(&mut steps.clone(), Vec::new(), true);
            steps.push(steps::Step::Skip(held));
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
        let text = String::from_utf8_lossy(&self.0[..whole]).into_owned();
        self.0.drain(..whole);
        text
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
