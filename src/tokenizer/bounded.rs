//! Encodes with the `tokenizers` crate, under a budget. A `tokenizer.json` comes from strangers: its normalizers can make a text
//! a million times as long, its expressions can take years, and the crate panics at some of its parts.
//!
//! So we run the steps of its normalizer and its pre-tokenizer one by one. A text may become [`MOST_GROWTH`] times as long.
//! Expressions have a limit of size, a limit of steps for each match (that of the `fancy-regex` crate), and a time for all of a
//! text. Panics become errors.

use crate::error::caught;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use fancy_regex::Expr;
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::syntax;
use serde_json::Value;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokenizers::normalizer::{NormalizedString, SplitDelimiterBehavior};
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{AddedVocabulary, Model, Normalizer, NormalizerWrapper, OffsetType, Offsets, PreTokenizedString};
use tokenizers::{PreTokenizer, PreTokenizerWrapper, Result as Made, Tokenizer};
use unicode_normalization_alignments::UnicodeNormalization;

/// How many times as long normalizers and pre-tokenizers may make a text.
const MOST_GROWTH: usize = 16;

/// How many times as long decoders may make a text, at worst. An answer is short.
const MOST_DECODED: usize = 1024;

/// Bytes that a text may grow by beyond that.
const SLACK: usize = 256;

/// A step that could make no more bytes than this is not asked how many it makes.
const SMALL: usize = 1 << 20;

/// The longest time for the expressions of one text, and what each byte adds to it.
const LONGEST_TIME: Duration = Duration::from_secs(1);
const TIME_OF_BYTE: Duration = Duration::from_micros(10);

/// Most bytes of one automaton for all expressions together. A class such as `\p{L}` has 30 kB, and what it repeats counts as
/// often as it may be there. The crate builds each expression up to three times besides ours, forwards and backwards.
const LARGEST_EXPRESSIONS: usize = 2 << 20;

/// Bytes of an automaton for a character, or what is as small.
const SMALL_EXPRESSION: usize = 64;

/// Longest word of a `WordPiece` model, in characters. The time grows with its square.
const LONGEST_WORD: u64 = 256;

/// Longest text that a map of normalisations makes of a character, in bytes. The longest of Unicode has 33.
const LONGEST_MAPPED: usize = 48;

/// When the expressions must be done with a text.
pub(super) fn until(text: &str) -> Instant {
    Instant::now() + time_of(text.len())
}

/// The time for the expressions of a text of so many bytes.
pub(super) fn time_of(bytes: usize) -> Duration {
    LONGEST_TIME + TIME_OF_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
}

pub(super) const LATE: &str = "its expressions take too long";

/// A tokenizer that the crate runs.
#[derive(Clone, Debug)]
pub(super) struct Bounded {
    normal: Vec<Normal>,
    cuts: Vec<Cut>,
    /// How many times as long the pre-tokenizer can make a text.
    growth: usize,
}

/// A step of a normalizer.
#[derive(Clone, Debug)]
enum Normal {
    Replace(Expression, String),
    Other(NormalizerWrapper),
}

/// A step of a pre-tokenizer.
#[derive(Clone, Debug)]
enum Cut {
    Split { at: Expression, behavior: SplitDelimiterBehavior, invert: bool },
    Other(PreTokenizerWrapper),
}

impl Bounded {
    /// The steps of a `tokenizer.json`.
    pub(super) fn new(json: &Value) -> Result<Self, String> {
        check_expressions(json)?;
        let (mut normal, mut cuts) = (Vec::new(), Vec::new());
        for step in steps(&json["normalizer"], "normalizers") {
            normal.push(Normal::new(step)?);
        }
        for step in steps(&json["pre_tokenizer"], "pretokenizers") {
            cuts.push(Cut::new(step)?);
        }
        let growth = cuts.iter().map(Cut::growth).fold(1, usize::saturating_mul);
        if growth > MOST_GROWTH {
            return Err(format!("its pre-tokenizers can make a text more than {MOST_GROWTH} times as long"));
        }
        let decoders = steps(&json["decoder"], "decoders");
        if decoders.into_iter().map(decoded_growth).fold(1, usize::saturating_mul) > MOST_DECODED {
            return Err(format!("its decoders can make a text more than {MOST_DECODED} times as long"));
        }
        if let Some(longest) = json["model"]["max_input_chars_per_word"].as_u64().filter(|n| *n > LONGEST_WORD) {
            return Err(format!("max_input_chars_per_word is {longest}, and the largest possible is {LONGEST_WORD}"));
        }
        Ok(Bounded { normal, cuts, growth })
    }

    /// Checks what the steps make of the added tokens of a `tokenizer.json`: the crate runs them when it reads it, and would find
    /// one of which nothing is left between all characters of a text, without an end.
    pub(super) fn check_added(&self, json: &Value) -> Result<(), String> {
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let Some(content) = token["content"].as_str() else { continue };
            let (budget, mut normal) = (Budget::new(content, self.growth), NormalizedString::from(content));
            budget.run(&self.normal, &mut normal)?;
            if token["normalized"] == true && normal.get().is_empty() && !content.is_empty() {
                return Err(format!("its normalizer leaves nothing of the added token {content:?}"));
            }
        }
        Ok(())
    }

    /// The ids of a text. `added` says which tokens are looked for in it.
    pub(super) fn encode(&self, text: &str, added: &AddedVocabulary, inner: &Tokenizer) -> Result<Vec<u32>, String> {
        let budget = Budget::new(text, self.growth);
        let ids = caught(|| {
            let normal = Steps { all: &self.normal, budget: &budget };
            let mut pieces = added.extract_and_normalize((!self.normal.is_empty()).then_some(&normal), text);
            budget.room.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            self.cuts.iter().try_for_each(|cut| cut.run(&mut pieces, &budget)).map_err(|e| e.to_string())?;
            let model = inner.get_model();
            pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(|e| e.to_string())?;
            let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(|e| e.to_string())?;
            Ok(encoding.get_ids().to_vec())
        });
        ids.unwrap_or_else(|panic| Err(format!("one of its parts is damaged: {panic}")))
    }
}

/// The steps of a component, those of sequences within it too.
fn steps<'j>(json: &'j Value, list: &str) -> Vec<&'j Value> {
    match &json[list] {
        Value::Array(all) => all.iter().flat_map(|step| steps(step, list)).collect(),
        _ if json.is_null() => Vec::new(),
        _ => vec![json],
    }
}

/// Checks that the expressions of a `tokenizer.json` are small, before the crate builds automata for them: it does so without
/// a limit for some.
fn check_expressions(json: &Value) -> Result<(), String> {
    let lists = [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")];
    let all = lists.iter().flat_map(|(component, list)| steps(&json[*component], list));
    let mut size = 0_usize;
    for expression in all.filter_map(|step| step["pattern"]["Regex"].as_str()) {
        let tree = caught(|| Expr::parse_tree(expression).map_err(|e| e.to_string())).and_then(|tree| tree);
        size = size.saturating_add(automaton(&tree.map_err(|e| format!("the expression {expression}: {e}"))?.expr));
        if size > LARGEST_EXPRESSIONS {
            return Err("its expressions are too large".to_string());
        }
    }
    Ok(())
}

/// Bytes of an automaton for an expression.
fn automaton(expression: &Expr) -> usize {
    let (parts, times): (Vec<&Expr>, usize) = match expression {
        Expr::Concat(parts) | Expr::Alt(parts) => (parts.iter().collect(), 1),
        Expr::Group(part) | Expr::LookAround(part, _) | Expr::AtomicGroup(part) => (vec![part], 1),
        Expr::Conditional { condition, true_branch, false_branch } => (vec![condition, true_branch, false_branch], 1),
        Expr::Repeat { child, lo, hi: usize::MAX, .. } => (vec![child], lo.saturating_add(1)),
        Expr::Repeat { child, hi, .. } => (vec![child], *hi),
        Expr::Literal { val, .. } => (Vec::new(), val.len()),
        Expr::Delegate { inner, .. } => {
            let config = thompson::Config::new().reverse(true).which_captures(WhichCaptures::None);
            let config = config.nfa_size_limit(Some(LARGEST_EXPRESSIONS));
            return NFA::compiler().configure(config).build(inner).map_or(usize::MAX, |nfa| nfa.memory_usage());
        }
        _ => (Vec::new(), 1),
    };
    parts.into_iter().map(automaton).fold(SMALL_EXPRESSION, usize::saturating_add).saturating_mul(times)
}

/// How many times as long a decoder can make a text.
fn decoded_growth(step: &Value) -> usize {
    let length = |text: &Value| text.as_str().map_or(0, str::len);
    let (from, to) = (&step["pattern"], length(&step["content"]));
    let least = |regex| syntax::parse(regex).ok().and_then(|shape| shape.properties().minimum_len()).unwrap_or(0);
    match (&from["String"], &from["Regex"]) {
        (Value::String(from), _) if !from.is_empty() => to.div_ceil(from.len()).max(1),
        (_, Value::String(from)) if least(from) > 0 => to.div_ceil(least(from)).max(1),
        (Value::Null, Value::Null) => {
            let blank = ["suffix", "word_delimiter_token"].iter().any(|key| step[*key] == "");
            if blank { 2 } else { 1 }
        }
        // It may match where there is no text.
        _ => 1 + to,
    }
}

/// What may be made of a text.
struct Budget {
    /// Bytes that may still come out of the normalizer, or why it failed: the crate drops its errors.
    room: Mutex<Result<usize, String>>,
    until: Instant,
}

impl Budget {
    fn new(text: &str, growth: usize) -> Budget {
        let room = text.len().saturating_mul(MOST_GROWTH) / growth + SLACK;
        Budget { room: Mutex::new(Ok(room)), until: until(text) }
    }

    /// Normalizes a piece of the text.
    fn run(&self, steps: &[Normal], text: &mut NormalizedString) -> Result<(), String> {
        let mut left = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let room = left.clone()?;
        let run = || steps.iter().try_for_each(|step| step.run(text, room, self.until));
        let result = caught(run).unwrap_or_else(|panic| Err(format!("its normalizer is damaged: {panic}")));
        *left = result.map(|_| room - text.get().len());
        left.clone().map(drop)
    }
}

fn fits(bytes: usize, room: usize) -> Result<(), String> {
    match bytes > room {
        true => Err(format!("its normalizer makes a text more than {MOST_GROWTH} times as long")),
        false => Ok(()),
    }
}

/// A normalizer that stops at the end of its budget.
struct Steps<'b> {
    all: &'b [Normal],
    budget: &'b Budget,
}

impl Normalizer for Steps<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> Made<()> {
        Ok(self.budget.run(self.all, text)?)
    }
}

impl Normal {
    fn new(step: &Value) -> Result<Normal, String> {
        let damaged = |why: &dyn std::fmt::Display| format!("its normalizer {} is damaged: {why}", step["type"]);
        if let Some(map) = step["precompiled_charsmap"].as_str() {
            check_map(map).map_err(|why| damaged(&why))?;
        }
        if step["type"] == "Replace" {
            let content = step["content"].as_str().ok_or_else(|| damaged(&"it has no content"))?;
            return Ok(Normal::Replace(Expression::new(&step["pattern"])?, content.into()));
        }
        let step = caught(|| serde_json::from_value(step.clone()).map_err(|e| damaged(&e)));
        Ok(Normal::Other(step.unwrap_or_else(|panic| Err(damaged(&panic)))?))
    }

    fn run(&self, text: &mut NormalizedString, room: usize, until: Instant) -> Result<(), String> {
        let run = match self {
            Normal::Replace(at, content) => {
                let found = at.find(text.get(), until)?;
                let made = found.iter().map(|((from, to), is)| if *is { content.len() } else { to - from });
                fits(made.fold(0, usize::saturating_add), room)?;
                text.replace(Found(Cell::new(found)), content)
            }
            Normal::Other(step) => {
                if text.get().len().saturating_mul(LONGEST_MAPPED) > SMALL {
                    fits(made(step, text.get()), room)?;
                }
                step.normalize(text)
            }
        };
        run.map_err(|e| e.to_string())?;
        fits(text.get().len(), room)
    }
}

/// Bytes that a step makes of a text, if it could make many.
fn made(step: &NormalizerWrapper, text: &str) -> usize {
    let bytes = |(c, _): (char, isize)| c.len_utf8();
    match step {
        NormalizerWrapper::NFC(_) => text.nfc().map(bytes).sum(),
        NormalizerWrapper::NFD(_) => text.nfd().map(bytes).sum(),
        NormalizerWrapper::NFKC(_) => text.nfkc().map(bytes).sum(),
        NormalizerWrapper::NFKD(_) => text.nfkd().map(bytes).sum(),
        NormalizerWrapper::Precompiled(map) => map.normalize_string(text).len(),
        NormalizerWrapper::Prepend(prepend) => text.len() + prepend.prepend.len(),
        _ => text.len(),
    }
}

impl Cut {
    fn new(step: &Value) -> Result<Cut, String> {
        let damaged = |why: &dyn std::fmt::Display| format!("its pre-tokenizer {} is damaged: {why}", step["type"]);
        if step["length"] == 0 {
            return Err(damaged(&"its length is 0"));
        }
        let cut = caught(|| serde_json::from_value(step.clone()).map_err(|e| damaged(&e)));
        Ok(match cut.unwrap_or_else(|panic| Err(damaged(&panic)))? {
            PreTokenizerWrapper::Split(split) => {
                let pattern = serde_json::to_value(&split.pattern).map_err(|e| damaged(&e))?;
                Cut::Split { at: Expression::new(&pattern)?, behavior: split.behavior, invert: split.invert }
            }
            other => Cut::Other(other),
        })
    }

    /// How many times as long it can make a text.
    fn growth(&self) -> usize {
        match self {
            // A byte becomes a character of two, and another is put before it.
            Cut::Other(PreTokenizerWrapper::ByteLevel(level)) => 2 + 2 * usize::from(level.add_prefix_space),
            Cut::Other(PreTokenizerWrapper::Metaspace(meta)) => 1 + meta.get_replacement().len_utf8(),
            _ => 1,
        }
    }

    fn run(&self, text: &mut PreTokenizedString, budget: &Budget) -> Made<()> {
        match self {
            Cut::Split { at, behavior, invert: false } => {
                text.split(|_, text| text.split(Timed(at, budget.until), *behavior))
            }
            Cut::Split { at, behavior, invert: true } => {
                text.split(|_, text| text.split(Invert(Timed(at, budget.until)), *behavior))
            }
            Cut::Other(cut) => cut.pre_tokenize(text),
        }
    }
}

/// An expression of a `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct Expression(fancy_regex::Regex);

impl Expression {
    pub(super) fn new(pattern: &Value) -> Result<Expression, String> {
        let pattern: SplitPattern = serde_json::from_value(pattern.clone()).map_err(|e| format!("a pattern: {e}"))?;
        let expression = match pattern {
            SplitPattern::String(text) => fancy_regex::escape(&text).into_owned(),
            SplitPattern::Regex(expression) => expression,
        };
        let regex = caught(|| fancy_regex::Regex::new(&expression));
        match regex {
            Ok(regex) => regex.map(Expression).map_err(|e| format!("the expression {expression}: {e}")),
            Err(panic) => Err(format!("the expression {expression}: {panic}")),
        }
    }

    /// All parts of a text, each with whether it is a match.
    pub(super) fn find(&self, text: &str, until: Instant) -> Result<Vec<(Offsets, bool)>, String> {
        if text.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let (mut parts, mut from) = (Vec::new(), 0);
        for found in self.0.find_iter(text) {
            let found = found.map_err(|e| format!("the expression {}: {e}", self.0.as_str()))?;
            if Instant::now() > until {
                return Err(LATE.to_string());
            }
            if from != found.start() {
                parts.push(((from, found.start()), false));
            }
            parts.push(((found.start(), found.end()), true));
            from = found.end();
        }
        if from != text.len() {
            parts.push(((from, text.len()), false));
        }
        Ok(parts)
    }
}

/// An expression that has to be done in time.
struct Timed<'e>(&'e Expression, Instant);

impl Pattern for Timed<'_> {
    fn find_matches(&self, text: &str) -> Made<Vec<(Offsets, bool)>> {
        Ok(self.0.find(text, self.1)?)
    }
}

/// Matches that are known, for one search.
struct Found(Cell<Vec<(Offsets, bool)>>);

impl Pattern for Found {
    fn find_matches(&self, _: &str) -> Made<Vec<(Offsets, bool)>> {
        Ok(self.0.take())
    }
}

/// Checks a map of normalisations in the form of SentencePiece, in Base64: four bytes say how many bytes of a double array
/// follow, and after it come the texts, each with a NUL at its end. The crate allocates as the first four bytes say.
fn check_map(base64: &str) -> Result<(), String> {
    let bytes = BASE64_STANDARD.decode(base64).map_err(|e| e.to_string())?;
    let (size, rest) = bytes.split_first_chunk().ok_or("it is too short")?;
    let size = u32::from_le_bytes(*size) as usize;
    let texts = rest.get(size..).ok_or("it is too short")?;
    if size == 0 || !size.is_multiple_of(4) {
        return Err(format!("its table has {size} bytes"));
    }
    match texts.split(|b| *b == 0).map(<[u8]>::len).max() {
        Some(longest) if longest > LONGEST_MAPPED => {
            Err(format!("it makes {longest} bytes of a character, and the most are {LONGEST_MAPPED}"))
        }
        _ => Ok(()),
    }
}
