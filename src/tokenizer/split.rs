//! How a `tokenizer.json` splits text into pre-tokens, and where a text may be cut without changing them.
//!
//! The published expressions end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to what follows. No
//! automaton can look ahead, so the rest of an expression and `\s+` are matched, and the last character is given back. Both
//! use the tables of characters that the `tokenizers` crate uses, so the pre-tokens are the same.

use super::bounded::{LATE, until};
use super::byte_level::{Cut, GPT2};
use super::letters::is_letter;
use super::{LLAMA3, QWEN2};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, meta};
use std::borrow::Cow;
use std::time::Instant;
use unicode_normalization_alignments::UnicodeNormalization;

/// The end of an expression that looks ahead.
const BLANKS: &str = r"|\s+(?!\S)|\s+";

pub(super) const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Expressions of which it is known where their matches end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Gpt2,
    /// Llama 3, Qwen 2, GPT-4o.
    Later,
}

/// What an expression remembers while it splits a text.
#[derive(Debug)]
pub(super) struct Cache {
    regex: meta::Cache,
    until: Option<Instant>,
    parts: usize,
    late: bool,
}

impl Cache {
    /// Parts from one look at the clock to the next.
    const LOOK: usize = 64;

    /// Begins a text.
    pub(super) fn begin(&mut self, text: &str) {
        (self.until, self.parts, self.late) = (Some(until(text)), 0, false);
    }

    /// Whether it is too late for one part more.
    fn count_part(&mut self) -> bool {
        self.parts += 1;
        if self.parts.is_multiple_of(Self::LOOK) {
            self.late |= self.until.is_some_and(|until| Instant::now() > until);
        }
        self.late
    }

    /// Whether the text was split in time.
    pub(super) fn in_time(&self) -> Result<(), String> {
        if self.late { Err(LATE.to_string()) } else { Ok(()) }
    }
}

/// An expression whose matches are pre-tokens.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    /// The expression, and if it ends in [`BLANKS`] without these, and `\s+`.
    regex: meta::Regex,
    known: Option<Known>,
}

impl Expression {
    fn new(expression: &str) -> Result<Self, String> {
        let plain = expression.strip_suffix(BLANKS);
        let first = plain.unwrap_or(expression);
        let unsupported = |why: &dyn std::fmt::Display| format!("the expression {expression} is not supported: {why}");
        let shape = syntax::parse(first).map_err(|e| unsupported(&e))?;
        if has_possessive(first) || !shape.properties().look_set().is_empty() {
            return Err(unsupported(&"it looks around or does not go back"));
        }
        if shape.properties().minimum_len().is_none_or(|bytes| bytes == 0) {
            return Err(unsupported(&"it matches nothing"));
        }
        let parts: Vec<&str> = [first].into_iter().chain(plain.map(|_| r"\s+")).collect();
        let regex = meta::Regex::new_many(&parts).map_err(|e| unsupported(&e))?;
        let known = match expression {
            GPT2 => Some(Known::Gpt2),
            LLAMA3 | QWEN2 | O200K => Some(Known::Later),
            _ => None,
        };
        Ok(Self { regex, known })
    }

    pub(super) fn cache(&self) -> Cache {
        Cache { regex: self.regex.create_cache(), until: None, parts: 0, late: false }
    }

    /// Bytes of the first match, or of the text before it, in a text that is not empty.
    pub(super) fn first_part(&self, text: &str, cache: &mut Cache) -> usize {
        // Each part may take as long as the rest of the text is.
        if self.known.is_none() && cache.count_part() {
            return text.len();
        }
        let cache = &mut cache.regex;
        let Some(found) = self.regex.search_half_with(cache, &Input::new(text).anchored(Anchored::Yes)) else {
            return self.regex.search_with(cache, &Input::new(text)).map_or(text.len(), |found| found.start());
        };
        let end = found.offset();
        if found.pattern().as_usize() == 0 || end == text.len() {
            return end;
        }
        let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
        if last == end { end } else { end - last }
    }
}

/// Whether an expression has a repetition that does not go back (`a++`), which other parsers read as two repetitions.
fn has_possessive(expression: &str) -> bool {
    let (mut class, mut repeats, mut chars) = (0, false, expression.chars());
    while let Some(c) = chars.next() {
        match (c, class) {
            // `\p{L}` as a whole: its last character repeats nothing.
            ('\\', _) => {
                let braced = matches!(chars.next(), Some('p' | 'P')) && chars.as_str().starts_with('{');
                if braced {
                    chars.find(|&c| c == '}');
                }
            }
            ('[', _) => class += 1,
            (']', _) => class -= 1,
            ('+', 0) if repeats => return true,
            _ => {}
        }
        repeats = class == 0 && matches!(c, '?' | '*' | '+' | '}');
    }
    false
}

/// The step of an expression.
pub(super) fn cut(expression: &str) -> Result<Cut, String> {
    Expression::new(expression).map(|e| Cut::Expression(Box::new(e)))
}

/// How the tokenizers made here split: each digit, then by GPT-2's expression.
pub(super) fn trained() -> (Vec<Cut>, Ends) {
    let cuts = vec![Cut::EachDigit, cut(GPT2).expect("a supported expression")];
    (cuts, Ends { known: Known::Gpt2, ascii: false })
}

/// Where the pre-tokens of a text end whatever the rest of it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    known: Known,
    /// Only between two characters of ASCII, which a normal form leaves alone.
    ascii: bool,
}

impl Ends {
    /// `None` if nothing is known of one of the cuts. Digits never matter: they are split by what a character is.
    pub(super) fn new(cuts: &[Cut], ascii: bool) -> Option<Self> {
        let mut expressions = cuts.iter().filter_map(|cut| match cut {
            Cut::Expression(expression) => Some(expression),
            _ => None,
        });
        let known = expressions.next()?.known?;
        expressions.next().is_none().then_some(Self { known, ascii })
    }

    /// The positions from `from` on (above 0, below the end) at which a text may be cut.
    pub(super) fn cuts(self, text: &str, from: usize) -> impl Iterator<Item = usize> {
        let from = (from.max(1)..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        let mut before = text[..from].chars().next_back();
        text[from..].char_indices().filter_map(move |(i, after)| {
            let ends = self.between(before.replace(after)?, after);
            ends.then_some(from + i)
        })
    }

    /// Whether a pre-token ends between these two characters, and those before and after it are the same without the
    /// other side.
    fn between(self, before: char, after: char) -> bool {
        if self.ascii && !(before.is_ascii() && after.is_ascii()) {
            return false;
        }
        // No match has a letter or a number before another character, but `it's` may be one.
        let word = is_letter(before) || before.is_ascii_digit();
        if word && is_plain(after) && after != '\'' && !(before.is_ascii_digit() && after.is_ascii_digit()) {
            return true;
        }
        match self.known {
            // White space is at most the first character of a match, unless all of it is white space.
            Known::Gpt2 => after.is_whitespace() && !before.is_whitespace(),
            // A match that has a line end has nothing after it but more of them, and `/`.
            Known::Later => before == '\n' && after.is_ascii_graphic() && after != '/',
        }
    }
}

/// Splits a text into pieces of at least `least` bytes; `cut` gives the first position from another on to cut at.
pub(super) fn pieces(text: &str, least: usize, cut: impl Fn(&str, usize) -> Option<usize>) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::with_capacity(text.len() / least + 1), text);
    while rest.len() > least
        && let Some(at) = cut(rest, least)
    {
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// Whether a character is of some scripts' punctuation, white space, controls or digits, and thus no letter and no mark.
fn is_plain(c: char) -> bool {
    let ranges =
        matches!(c, '\0'..='\x7f' | '\u{2010}'..='\u{205e}' | '\u{3000}'..='\u{3020}' | '\u{ff01}'..='\u{ff0f}');
    ranges && !is_letter(c)
}

/// Unicode's normal form C.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    // Characters below U+0300 and those of these ranges are their own form, whatever stands beside them.
    let stable = |c| matches!(c, '\0'..='\u{2ff}' | '\u{400}'..='\u{482}' | '\u{2010}'..='\u{2027}' | '\u{3001}'..='\u{3029}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}');
    if text.chars().all(stable) { text.into() } else { text.nfc().map(|(c, _)| c).collect::<String>().into() }
}
