//! The decoders of the `tokenizers` crate, which read all tokens at once, as steps that take one token after another.
//!
//! A step turns tokens into tokens. `Fuse` and `ByteLevel` make one token of all, so the steps after them get pieces of that
//! one token. Most steps return a token as it comes. These hold text back:
//!
//! - `ByteFallback`: a run of byte tokens, up to its end, because one wrong byte makes U+FFFD of every byte of the run.
//! - `BPEDecoder`: the last token, which has no blank after it.
//! - On one token, `Replace`, `Strip`, `WordPiece` and `CTC`: the end of the text, as far as it may be the start of what
//!   they replace. `Replace` of a regular expression and `ByteLevel` hold it all, because they depend on all of it.
//!
//! The expressions of a `Replace` have a time for all of a text, as those that encode it. What they are late for stays as it is.

use super::{Utf8, overlap};
use crate::error::caught;
use crate::tokenizer::bounded::{Expression, time_of};
use crate::tokenizer::bpe::CHAR_BYTE;
use serde_json::Value;
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::{Decoder, DecoderWrapper};

/// What `cleanup` of `WordPiece` and `CTC` replaces, in order.
const CLEANUP: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// One decoder and what it holds back.
#[derive(Clone, Debug)]
pub(in crate::tokenizer) enum Step {
    /// Without a decoder, a blank stands between two tokens.
    Blanks { first: bool },
    /// A token's text depends on whether it is the first, or on the one before it.
    Each { decoder: Arc<DecoderWrapper>, before: Option<String> },
    /// A token's text depends on whether it is the last.
    Last { decoder: Arc<DecoderWrapper>, held: Option<String> },
    /// A run of byte tokens.
    Run(Vec<String>),
    /// Makes one token of all, even of none.
    Fuse,
    /// Makes one token of the bytes of all.
    Level(Utf8),
    /// `Strip` of each token.
    StripEach(Strip),
    /// `Strip` of one token.
    Strip(Strip),
    /// Drops one token if it is empty.
    Filled,
    /// Replaces a text that is not empty in one token.
    Literal { from: String, to: String, held: String },
    /// Replaces what an expression finds in each token.
    Replace(Replace),
    /// The whole of one token.
    Hold(Option<String>),
    /// Leaves out a text, as far as the first pieces are equal to it.
    Skip(String),
    /// The whole of one token. One of more than `most` bytes stays as it is.
    Whole { decoder: Arc<DecoderWrapper>, held: Option<String>, most: usize },
}

/// The steps of a decoder.
pub(in crate::tokenizer) fn steps(decoder: Option<&DecoderWrapper>) -> Vec<Step> {
    let mut steps = Vec::new();
    match decoder {
        Some(decoder) => add(decoder, &mut false, &mut steps),
        None => steps.push(Step::Blanks { first: true }),
    }
    steps
}

/// Adds the steps of a decoder. `fused` says whether there is only one token from there on.
fn add(decoder: &DecoderWrapper, fused: &mut bool, steps: &mut Vec<Step>) {
    let shared = || Arc::new(decoder.clone());
    match decoder {
        DecoderWrapper::Sequence(all) => all.get_decoders().iter().for_each(|d| add(d, fused, steps)),
        DecoderWrapper::Fuse(_) => {
            steps.push(Step::Fuse);
            *fused = true;
        }
        _ if *fused => steps.extend(of_one_token(decoder)),
        DecoderWrapper::BPE(_) => steps.push(Step::Last { decoder: shared(), held: None }),
        DecoderWrapper::ByteFallback(_) => steps.push(Step::Run(Vec::new())),
        DecoderWrapper::Strip(s) => steps.push(Step::StripEach(Strip::new(s))),
        DecoderWrapper::ByteLevel(_) => {
            steps.push(Step::Level(Utf8::default()));
            *fused = true;
        }
        DecoderWrapper::Replace(r) if let Some(replace) = Replace::new(r) => steps.push(Step::Replace(replace)),
        DecoderWrapper::CTC(_)
        | DecoderWrapper::Metaspace(_)
        | DecoderWrapper::Replace(_)
        | DecoderWrapper::WordPiece(_) => steps.push(Step::Each { decoder: shared(), before: None }),
    }
}

/// The steps of a decoder of one token, which is the first and the last.
fn of_one_token(decoder: &DecoderWrapper) -> Vec<Step> {
    let whole = |most| vec![Step::Whole { decoder: Arc::new(decoder.clone()), held: None, most }];
    let cleanup = |wanted: bool| CLEANUP.iter().filter(move |_| wanted).map(|(from, to)| (from.to_string(), *to));
    let literals: Vec<(String, &str)> = match decoder {
        DecoderWrapper::Strip(s) => return vec![Step::Strip(Strip::new(s))],
        // Only a token such as <0x0A> is a byte.
        DecoderWrapper::ByteFallback(_) => return whole("<0x0A>".len()),
        DecoderWrapper::BPE(bpe) => vec![(bpe.suffix.clone(), "")],
        DecoderWrapper::Metaspace(m) => {
            let kept = m.prepend_scheme == tokenizers::pre_tokenizers::metaspace::PrependScheme::Never;
            vec![(m.get_replacement().to_string(), if kept { " " } else { "" })]
        }
        DecoderWrapper::WordPiece(w) => cleanup(w.cleanup).collect(),
        DecoderWrapper::CTC(ctc) => {
            let delimiter = ctc.cleanup.then(|| (ctc.word_delimiter_token.clone(), " "));
            std::iter::once((ctc.pad_token.clone(), "")).chain(cleanup(ctc.cleanup)).chain(delimiter).collect()
        }
        DecoderWrapper::Replace(replace) => match pattern(replace)["String"].as_str() {
            Some(from) if !from.is_empty() => vec![(from.to_string(), &replace.content)],
            _ => match Replace::new(replace) {
                Some(replace) => return vec![Step::Hold(None), Step::Replace(replace)],
                None => return whole(usize::MAX),
            },
        },
        _ => return whole(usize::MAX),
    };
    if literals.iter().any(|(from, _)| from.is_empty()) {
        return whole(usize::MAX);
    }
    let literal = |(from, to): (String, &str)| Step::Literal { from, to: to.to_string(), held: String::new() };
    let filled = matches!(decoder, DecoderWrapper::CTC(_)).then_some(Step::Filled);
    literals.into_iter().map(literal).chain(filled).collect()
}

/// The pattern of a `Replace`. The crate keeps it to itself.
fn pattern(replace: &tokenizers::normalizers::Replace) -> Value {
    serde_json::to_value(replace).map_or(Value::Null, |json| json["pattern"].clone())
}

/// Sends tokens through all steps, and at the end what they still hold. Returns the text that comes out.
pub(in crate::tokenizer) fn run(steps: &mut [Step], mut tokens: Vec<String>, end: bool) -> String {
    for step in steps {
        let mut out = Vec::new();
        tokens.into_iter().for_each(|token| step.push(token, &mut out));
        if end {
            step.finish(&mut out);
        }
        tokens = out;
    }
    tokens.concat()
}

/// What the crate makes of these tokens. Tokens at which it fails stay as they are.
fn decode(decoder: &DecoderWrapper, tokens: Vec<String>) -> Vec<String> {
    let decoded = caught(|| decoder.decode_chain(tokens.clone()));
    decoded.ok().and_then(Result::ok).unwrap_or(tokens)
}

impl Step {
    /// Takes a token, or a piece of the one token.
    fn push(&mut self, token: String, out: &mut Vec<String>) {
        match self {
            Step::Blanks { first: true } => {
                out.push(token);
                *self = Step::Blanks { first: false };
            }
            Step::Blanks { first: false } => out.push(format!(" {token}")),
            Step::Each { decoder, before } => {
                let again = before.as_ref() == Some(&token);
                let tokens = match before.replace(token.clone()) {
                    Some(_) if again && matches!(**decoder, DecoderWrapper::CTC(_)) => return,
                    // Any other token makes this one a later one.
                    Some(_) => vec![String::new(), token],
                    None => vec![token],
                };
                out.extend(decode(decoder, tokens).pop());
            }
            Step::Last { decoder, held } => {
                if let Some(token) = held.replace(token) {
                    out.extend(decode(decoder, vec![token, String::new()]).into_iter().next());
                }
            }
            Step::Run(run) if is_byte(&token) => run.push(token),
            Step::Run(run) => {
                out.extend(bytes(run));
                out.push(token);
            }
            Step::Level(utf8) => {
                let bytes: Option<Vec<u8>> = token.chars().map(|c| CHAR_BYTE.get(&c).copied()).collect();
                out.push(utf8.push(&bytes.unwrap_or_else(|| token.into_bytes())));
            }
            Step::Fuse => out.push(token),
            Step::Filled => out.extend(Some(token).filter(|t| !t.is_empty())),
            Step::StripEach(strip) => out.push(strip.clone().push(&token)),
            Step::Strip(strip) => out.push(strip.push(&token)),
            Step::Replace(replace) => out.push(replace.push(token)),
            Step::Hold(held) => held.get_or_insert_default().push_str(&token),
            Step::Literal { from, to, held } => {
                held.push_str(&token);
                let (mut text, mut rest) = (String::new(), &held[..]);
                while let Some((before, after)) = rest.split_once(from.as_str()) {
                    text += before;
                    text += to;
                    rest = after;
                }
                let (certain, open) = rest.split_at(rest.len() - overlap(rest, from));
                text += certain;
                out.push(text);
                *held = open.to_string();
            }
            Step::Skip(skipped) => {
                let equal = token.chars().zip(skipped.chars()).take_while(|(a, b)| a == b);
                let (_, rest) = token.split_at(equal.map(|(c, _)| c.len_utf8()).sum());
                out.push(rest.to_string());
                *skipped = if rest.is_empty() { skipped.split_off(token.len()) } else { String::new() };
            }
            Step::Whole { held, most, .. } => {
                held.get_or_insert_default().push_str(&token);
                if let Some(long) = held.take_if(|held| held.len() > *most) {
                    *most = 0;
                    out.push(long);
                }
            }
        }
    }

    /// Returns what is held after the last token.
    fn finish(&mut self, out: &mut Vec<String>) {
        match self {
            Step::Blanks { .. }
            | Step::Each { .. }
            | Step::StripEach(_)
            | Step::Strip(_)
            | Step::Filled
            | Step::Replace(_)
            | Step::Skip(_) => {}
            Step::Hold(held) => out.extend(held.take()),
            Step::Fuse => out.push(String::new()),
            Step::Last { decoder, held } | Step::Whole { decoder, held, .. } => {
                out.extend(held.take().into_iter().flat_map(|t| decode(decoder, vec![t])))
            }
            Step::Run(run) => out.extend(bytes(run)),
            Step::Level(utf8) => out.push(utf8.finish()),
            Step::Literal { held, .. } if held.is_empty() => {}
            Step::Literal { held, .. } => out.push(take(held)),
        }
    }
}

/// Whether `ByteFallback` takes a token for a byte.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') && u8::from_str_radix(&token[3..5], 16).is_ok()
}

/// The tokens that `ByteFallback` makes of a run of byte tokens.
fn bytes(run: &mut Vec<String>) -> Vec<String> {
    ByteFallback::new().decode_chain(take(run)).unwrap_or_default()
}

/// Removes at most `start` times `content` from the start of a token and `stop` times from its end.
#[derive(Clone, Debug)]
pub(in crate::tokenizer) struct Strip {
    content: char,
    /// How many may still go at the start.
    start: usize,
    stop: usize,
    /// How many stand at the end and are held back.
    held: usize,
}

impl Strip {
    fn new(strip: &tokenizers::decoders::strip::Strip) -> Strip {
        Strip { content: strip.content, start: strip.start, stop: strip.stop, held: 0 }
    }

    fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            if c != self.content {
                self.start = 0;
                out.extend((0..take(&mut self.held)).map(|_| self.content));
                out.push(c);
            } else if self.start > 0 {
                self.start -= 1;
            } else if self.held < self.stop {
                self.held += 1;
            } else {
                out.push(c);
            }
        }
        out
    }
}

/// `Replace`, with the time that its expression took so far.
#[derive(Clone, Debug)]
pub(in crate::tokenizer) struct Replace {
    at: Arc<Expression>,
    to: Arc<str>,
    /// Bytes so far.
    bytes: usize,
    taken: Duration,
}

impl Replace {
    fn new(replace: &tokenizers::normalizers::Replace) -> Option<Replace> {
        let at = Expression::new(&pattern(replace)).ok()?;
        Some(Replace { at: Arc::new(at), to: replace.content.as_str().into(), bytes: 0, taken: Duration::ZERO })
    }

    fn push(&mut self, text: String) -> String {
        self.bytes += text.len();
        let start = Instant::now();
        let end = (start + time_of(self.bytes)).checked_sub(self.taken);
        let found = self.at.find(&text, end.unwrap_or(start));
        self.taken += start.elapsed();
        let Ok(found) = found else { return text };
        found.into_iter().map(|((from, to), is)| if is { &*self.to } else { &text[from..to] }).collect()
    }
}
