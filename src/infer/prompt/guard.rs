//! Keeps what a client writes apart from what a template writes. A template may use a client's texts in any way: cut them,
//! join them, print them as JSON. So the spelling of a special token in a rendered prompt may be the template's or a client's.
//!
//! To tell them apart, the conversation is rendered once more with a marker, a character that occurs nowhere else, in every
//! text of the client at which a special token could begin or end. A special token that is spelled without a marker is the
//! template's. All other text is encoded as text.

use crate::tokenizer::{Spellings, Tokenizer};
use crate::{Error, Result};
use minijinja::value::{Value, ValueKind};
use std::collections::{BTreeMap, HashSet};

/// Most bytes of the spelling of a token. Public models have a few dozen.
const LONGEST: usize = 1 << 10;

/// Most bytes of all spellings whose parts are sorted.
const MOST: usize = 1 << 20;

/// A token that only a template may write.
struct Token {
    id: u32,
    spelling: String,
    /// Whether [`Tokenizer::encode`] leaves its spelling a text. If not, the spelling is cut in two.
    special: bool,
}

/// The tokens that only a template may write.
pub struct Guard {
    tokens: Vec<Token>,
    spellings: Spellings,
    /// All spellings, and where each part of them up to the end begins, in the order of these parts. No place if there are
    /// more than [`MOST`] bytes.
    all: String,
    ends: Vec<u32>,
    /// With which characters tokens begin and end, sorted.
    firsts: Vec<char>,
    lasts: Vec<char>,
}

/// Where markers are put into a text.
#[derive(Clone, Copy, PartialEq)]
pub enum Marks {
    /// After the first character of each spelling. Templates that look for their own tags still find them.
    Spellings,
    /// On both sides of every character with which a token begins or ends, so that the template may cut the text, join its
    /// pieces and turn it around.
    Everywhere,
}

/// A rendered prompt: texts, each but the last with the token that the template wrote after it.
pub struct Parts<'g> {
    parts: Vec<(String, Option<&'g Token>)>,
}

impl Parts<'_> {
    /// The tokens that the template wrote.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.parts.iter().filter_map(|(_, token)| token.map(|t| t.id))
    }
}

impl Guard {
    /// The special tokens of a tokenizer, and tokens that its author did not declare special, but that the template writes into
    /// `samples` like one: in angle or square brackets.
    ///
    /// # Errors
    /// When a sample cannot be encoded, or the spelling of a token is very long.
    pub fn new(tokenizer: &Tokenizer, samples: &[String]) -> Result<Guard> {
        let mut ids: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.is_special(*id)).collect();
        for text in samples {
            ids.extend(tokenizer.encode_with_specials(text)?);
        }
        ids.sort_unstable();
        ids.dedup();
        let token = |id| {
            let spelling = String::from_utf8(tokenizer.token_bytes(id)?).ok()?;
            let special = tokenizer.is_special(id);
            let tag = |open, close| spelling.len() > 2 && spelling.starts_with(open) && spelling.ends_with(close);
            (special && !spelling.is_empty() || tag('<', '>') || tag('[', ']')).then_some(Token {
                id,
                spelling,
                special,
            })
        };
        let tokens = ids.into_iter().filter_map(token).map(|token| (token.spelling.clone(), token));
        let tokens: Vec<Token> = tokens.collect::<BTreeMap<String, Token>>().into_values().collect();
        let spelled = || tokens.iter().map(|token| &*token.spelling);
        if let Some(longest) = spelled().map(str::len).max().filter(|length| *length > LONGEST) {
            return Err(Error::usage(format!("a special token has {longest} bytes, and the most are {LONGEST}")));
        }
        let sorted = |chars: &mut dyn Iterator<Item = char>| {
            let mut chars: Vec<char> = chars.collect();
            chars.sort_unstable();
            chars.dedup();
            chars
        };
        let firsts = sorted(&mut spelled().filter_map(|spelling| spelling.chars().next()));
        let lasts = sorted(&mut spelled().filter_map(|spelling| spelling.chars().next_back()));
        let spellings = Spellings::new(spelled().enumerate());
        let all: String = spelled().flat_map(|spelling| [spelling, "\0"]).collect();
        let mut ends: Vec<u32> = if all.len() > MOST { Vec::new() } else { (0..all.len() as u32).collect() };
        ends.sort_unstable_by_key(|at| &all.as_bytes()[*at as usize..]);
        Ok(Guard { tokens, spellings, all, ends, firsts, lasts })
    }

    /// The longest token with which a text begins.
    fn at(&self, text: &str) -> Option<&Token> {
        self.spellings.longest_at(text.as_bytes()).map(|i| &self.tokens[i])
    }

    /// Whether a token has a text within its spelling.
    fn has_within(&self, text: &str) -> bool {
        if self.all.len() > MOST {
            return text.len() <= LONGEST && self.all.contains(text);
        }
        let end = |at: u32| &self.all.as_bytes()[at as usize..];
        let first = self.ends.partition_point(|at| end(*at) < text.as_bytes());
        self.ends.get(first).is_some_and(|at| end(*at).starts_with(text.as_bytes()))
    }

    /// The first token that a text spells, and where.
    fn find(&self, text: &str) -> Option<(usize, &Token)> {
        text.char_indices().find_map(|(i, _)| Some((i, self.at(&text[i..])?)))
    }

    /// Whether a token could come to be in a rendered prompt from this text.
    pub fn concerns(&self, text: &str) -> bool {
        self.mark(text, Marks::Everywhere, '\0').is_some()
    }

    /// The text with markers. None if it needs none.
    pub fn mark(&self, text: &str, marks: Marks, marker: char) -> Option<String> {
        let mut at = Vec::new();
        // It may be the middle of a token that the template begins and ends.
        if marks == Marks::Everywhere && !text.is_empty() && self.has_within(text) {
            at.push(0);
        }
        for (i, c) in text.char_indices() {
            let ends = [i, i + c.len_utf8()];
            match marks {
                Marks::Everywhere if self.firsts.binary_search(&c).or(self.lasts.binary_search(&c)).is_ok() => {
                    at.extend(ends)
                }
                Marks::Spellings if self.at(&text[i..]).is_some() => at.push(ends[1]),
                _ => {}
            }
        }
        at.dedup();
        let mut out = String::with_capacity(text.len() + at.len() * marker.len_utf8());
        let mut from = 0;
        for &to in &at {
            out.push_str(&text[from..to]);
            out.push(marker);
            from = to;
        }
        (!at.is_empty()).then(|| out + &text[from..])
    }

    /// Marks every text within a value, keys of objects too.
    pub fn mark_value(&self, value: &Value, marks: Marks, marker: char) -> Value {
        let text = |value: &Value| value.as_str().and_then(|text| self.mark(text, marks, marker)).map(Value::from);
        match value.kind() {
            ValueKind::String => text(value).unwrap_or_else(|| value.clone()),
            ValueKind::Seq => {
                value.try_iter().into_iter().flatten().map(|v| self.mark_value(&v, marks, marker)).collect()
            }
            ValueKind::Map => Value::from_pairs(value.try_iter().into_iter().flatten().map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                (text(&key).unwrap_or(key), self.mark_value(&item, marks, marker))
            })),
            _ => value.clone(),
        }
    }

    /// Takes a rendered text apart, and the markers out of it.
    pub fn parts(&self, rendered: &str, marker: char) -> Parts<'_> {
        let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), rendered);
        while let Some(next) = rest.chars().next() {
            // A token of one character is spelled without a marker if none follows it.
            let own = |t: &&Token| t.spelling.len() > next.len_utf8() || !rest[next.len_utf8()..].starts_with(marker);
            match self.at(rest).filter(own) {
                Some(token) => {
                    parts.push((std::mem::take(&mut text), Some(token)));
                    rest = &rest[token.spelling.len()..];
                }
                None => {
                    text.extend((next != marker).then_some(next));
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        parts.push((text, None));
        Parts { parts }
    }

    /// Whether a prompt has the tokens that the template wrote and no others. A tokenizer may change a text before it looks for
    /// tokens, and so find one that nobody spelled.
    pub fn accepts(&self, ids: &[u32], parts: &Parts<'_>) -> bool {
        let guarded: HashSet<u32> = self.tokens.iter().map(|t| t.id).collect();
        ids.iter().copied().filter(|id| guarded.contains(id)).eq(parts.ids())
    }

    /// The ids of a prompt, each text encoded by itself.
    pub fn encode_apart(&self, parts: &Parts<'_>, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for (text, token) in &parts.parts {
            self.encode_text(text, tokenizer, &mut ids)?;
            ids.extend(token.map(|t| t.id));
        }
        Ok(ids)
    }

    /// The ids of a prompt. A text in which a client has spelled a token is encoded as text, by itself. All between such texts
    /// is encoded as one.
    pub fn encode(&self, parts: &Parts<'_>, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let (mut ids, mut run) = (Vec::new(), String::new());
        for (i, (text, token)) in parts.parts.iter().enumerate() {
            if self.find(text).is_some() {
                let before = i.checked_sub(1).and_then(|i| parts.parts[i].1);
                ids.extend(tokenizer.encode_with_specials(&std::mem::take(&mut run))?);
                self.encode_text(trimmed(text, before, *token, tokenizer), tokenizer, &mut ids)?;
            } else {
                run.push_str(text);
            }
            run.push_str(token.map_or("", |t| &t.spelling));
        }
        ids.extend(tokenizer.encode_with_specials(&run)?);
        Ok(ids)
    }

    fn encode_text(&self, text: &str, tokenizer: &Tokenizer, ids: &mut Vec<u32>) -> Result<()> {
        let (mut from, mut rest) = (0, text);
        while let Some((at, token)) = self.find(&rest[from..]) {
            from += at + token.spelling.chars().next().map_or(1, char::len_utf8);
            if !token.special {
                ids.extend(tokenizer.encode(&rest[..from])?);
                (from, rest) = (0, &rest[from..]);
            }
        }
        ids.extend(tokenizer.encode(rest)?);
        Ok(())
    }
}

/// A text without the blanks that the tokens beside it swallow.
fn trimmed<'t>(text: &'t str, before: Option<&Token>, after: Option<&Token>, tokenizer: &Tokenizer) -> &'t str {
    let swallows = |token: Option<&Token>, all: String| {
        token.is_some_and(|t| all != t.spelling && tokenizer.encode_with_specials(&all).is_ok_and(|ids| ids == [t.id]))
    };
    let (inner, spelling) = (text.trim_start(), |t: Option<&Token>| t.map_or("", |t| &*t.spelling).to_string());
    let blanks = &text[..text.len() - inner.len()];
    let text = if swallows(before, spelling(before) + blanks) { inner } else { text };
    let inner = text.trim_end();
    if swallows(after, text[inner.len()..].to_string() + &spelling(after)) { inner } else { text }
}
