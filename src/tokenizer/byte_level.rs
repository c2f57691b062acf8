//! A byte-level BPE. It reads a `tokenizer.json` and gives the ids that the `tokenizers` crate gives, many times as fast;
//! tests compare the two. It is also what a browser has, for which that crate would be too large. A file that needs an
//! unsupported feature is rejected with the feature's name.
//!
//! Encoding has three steps. Added tokens are extracted; the text between them is split into pre-tokens, by digits and by
//! expressions; in each pre-token, pairs are merged, the lowest rank first, the leftmost of equal ranks first. The time is
//! near linear in the length of the longest pre-token, and the memory at most 32 bytes for each of its bytes.

use super::byte_char;
#[cfg(any(test, not(feature = "native")))]
use super::letters::is_letter;
use super::spellings::Spellings;
#[cfg(feature = "native")]
use super::{queue::Queue, split::Expression, words::Words};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};

pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A token that is matched verbatim in the text.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) content: String,
    pub(super) id: u32,
    pub(super) special: bool,
    /// Normalized tokens are matched after all others.
    pub(super) normalized: bool,
}

/// How text between added tokens is split.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    /// Each digit is a pre-token.
    EachDigit,
    /// Each run of digits is a pre-token.
    Digits,
    /// [`GPT2`]
    #[cfg(any(test, not(feature = "native")))]
    Gpt2,
    /// Each match of an expression is a pre-token, and so is what lies between two.
    #[cfg(feature = "native")]
    Expression(Box<Expression>),
}

/// A loaded `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct ByteLevel {
    #[cfg(any(test, not(feature = "native")))]
    json: String,
    /// The bytes of each id.
    #[cfg(any(test, not(feature = "native")))]
    tokens: Vec<Option<Box<[u8]>>>,
    /// Ids of the tokens of the model's vocabulary, by their bytes.
    ids: HashMap<Box<[u8]>, u32>,
    /// Ids of the 256 bytes.
    bytes: Vec<u32>,
    /// [`pair`] -> (rank, merged token).
    merges: HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>,
    pub(super) added: Vec<Added>,
    /// Those of the added tokens that are not normalized, and those of the others.
    spellings: [Spellings; 2],
    pub(super) cuts: Vec<Cut>,
    /// A pre-token that is in the vocabulary becomes that token without merging.
    whole_words: bool,
    /// Text is brought to Unicode's normal form C first.
    #[cfg(feature = "native")]
    pub(super) nfc: bool,
    /// Work spaces that are not in use.
    idle: Arc<Mutex<Vec<Work>>>,
}

#[cfg(any(test, not(feature = "native")))]
impl ByteLevel {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json = super::parse_json(text)?;
        if !json["normalizer"].is_null() {
            return Err(format!("the normalizer {} is not supported", json["normalizer"]["type"]));
        }
        let mut tokenizer = Self::new(&json, cuts(&json["pre_tokenizer"], &only_gpt2)?)?;
        tokenizer.json = text.to_string();
        Ok(tokenizer)
    }

    pub(super) fn to_json(&self) -> String {
        self.json.clone()
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.tokens.get(id as usize)?.as_ref().map(|bytes| bytes.to_vec())
    }

    pub(super) fn token_id(&self, token: &str) -> Option<u32> {
        let added = self.added.iter().find(|a| a.content == token).map(|a| a.id);
        added.or_else(|| {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| (0..=255).find(|b| byte_char(*b) == c)).collect();
            self.ids.get(&bytes?[..]).copied()
        })
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.added.iter().any(|a| a.id == id && a.special)
    }
}

impl ByteLevel {
    /// The tokenizer of a `tokenizer.json` whose pre-tokenizer is `cuts`.
    pub(super) fn new(json: &Value, cuts: Vec<Cut>) -> Result<Self, String> {
        let model = &json["model"];
        check(json)?;
        let char_byte: HashMap<char, u8> = (0..=255u8).map(|b| (byte_char(b), b)).collect();
        let spelled = |token: &str| token.chars().map(|c| char_byte.get(&c).copied()).collect::<Option<Box<[u8]>>>();
        let vocab = model["vocab"].as_object().ok_or("it has no vocabulary")?;
        let size = vocab.len() + json["added_tokens"].as_array().map_or(0, Vec::len);
        let added = added_tokens(&json["added_tokens"], size)?;
        // No text gives one of these, unless it is a single byte.
        let control: HashSet<&[u8]> =
            added.iter().filter(|a| a.special && a.content.len() > 1).map(|a| a.content.as_bytes()).collect();
        let mut ids = HashMap::new();
        #[cfg(any(test, not(feature = "native")))]
        let mut tokens = Vec::new();
        for (token, id) in vocab {
            let id = token_id(id, size)?;
            let bytes = spelled(token);
            if let Some(bytes) = bytes.as_ref().filter(|bytes| !control.contains(&bytes[..])) {
                ids.insert(bytes.clone(), id);
            }
            #[cfg(any(test, not(feature = "native")))]
            put(&mut tokens, id, bytes.unwrap_or_else(|| token.as_bytes().into()));
        }
        #[cfg(any(test, not(feature = "native")))]
        added.iter().for_each(|a| put(&mut tokens, a.id, a.content.as_bytes().into()));
        let bytes = (0..=255u8).map(|b| ids.get(&[b][..]).copied().ok_or(format!("it has no token for the byte {b}")));
        let bytes = bytes.collect::<Result<_, _>>()?;
        let mut merges = HashMap::default();
        for (rank, merge) in model["merges"].as_array().ok_or("it has no merges")?.iter().enumerate() {
            let bad = || format!("merge {rank} is {merge}: it must join two tokens into one");
            let (left, right) = match merge.as_str() {
                Some(both) => both.split_once(' ').ok_or_else(bad)?,
                None => merge[0].as_str().zip(merge[1].as_str()).ok_or_else(bad)?,
            };
            let (left, right) = spelled(left).zip(spelled(right)).ok_or_else(bad)?;
            let tokens = [&left[..], &right, &[&left[..], &right].concat()];
            if !tokens.iter().any(|token| control.contains(token)) {
                let [left, right, both] = tokens.map(|token| ids.get(token).copied().ok_or_else(bad));
                merges.insert(pair(left?, right?), (rank as u32, both?));
            }
        }
        let spellings = [false, true].map(|normalized| {
            let some = added.iter().enumerate().filter(|(_, a)| a.normalized == normalized);
            Spellings::new(some.map(|(i, a)| (i, &*a.content)))
        });
        Ok(ByteLevel {
            #[cfg(any(test, not(feature = "native")))]
            json: String::new(),
            #[cfg(any(test, not(feature = "native")))]
            tokens,
            ids,
            bytes,
            merges,
            added,
            spellings,
            cuts,
            whole_words: model["ignore_merges"] == true,
            #[cfg(feature = "native")]
            nfc: false,
            idle: Arc::default(),
        })
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, String> {
        let idle = || self.idle.lock().unwrap_or_else(|e| e.into_inner());
        let mut work = idle().pop().unwrap_or_else(|| Work { caches: caches(&self.cuts), space: Space::default() });
        let mut ids = Vec::new();
        #[cfg(feature = "native")]
        work.caches.iter_mut().flatten().for_each(|cache| cache.begin(text));
        self.take_added(text, false, specials, &mut work, &mut ids);
        #[cfg(feature = "native")]
        work.caches.iter().flatten().try_for_each(|cache| cache.in_time())?;
        if work.space.ids.capacity() <= KEPT {
            idle().push(work);
        }
        Ok(ids)
    }

    /// Extracts the added tokens with this `normalized` flag and encodes the text between them.
    fn take_added(&self, text: &str, normalized: bool, specials: bool, work: &mut Work, ids: &mut Vec<u32>) {
        let (mut rest, mut from) = (text, 0);
        while let Some((at, added)) = self.first_added(&rest.as_bytes()[from..], normalized) {
            let (at, end) = (from + at, from + at + added.content.len());
            if added.special && !specials {
                from = end; // it is text, but no token may begin within it
                continue;
            }
            self.encode_plain(&rest[..at], normalized, specials, work, ids);
            ids.push(added.id);
            (rest, from) = (&rest[end..], 0);
        }
        self.encode_plain(rest, normalized, specials, work, ids);
    }

    /// The leftmost added token; the longest if several start there.
    fn first_added(&self, text: &[u8], normalized: bool) -> Option<(usize, &Added)> {
        let spellings = &self.spellings[usize::from(normalized)];
        (0..text.len()).find_map(|at| Some((at, &self.added[spellings.longest_at(&text[at..])?])))
    }

    /// Says of ever later positions, from `from` on, whether the spelling of an added token begins before and ends after it, or
    /// may do so in a longer text.
    #[cfg(feature = "native")]
    pub(super) fn added_spans<'a>(&'a self, text: &'a str, from: usize) -> impl FnMut(usize) -> bool + 'a {
        let text = text.as_bytes();
        let end = move |at: usize| {
            let ends = self.spellings.each_ref().map(|spellings| {
                let more = text.len() - at < LONGEST_ADDED && spellings.go_on_from(&text[at..]);
                let whole = || spellings.longest_at(&text[at..]).map(|i| at + self.added[i].content.len());
                if more { Some(usize::MAX) } else { whole() }
            });
            ends.into_iter().flatten().max().unwrap_or(0)
        };
        let (mut next, mut farthest) = (from.saturating_sub(LONGEST_ADDED), 0);
        move |at| {
            while next < at {
                farthest = end(next).max(farthest);
                next += 1;
            }
            farthest > at
        }
    }

    fn encode_plain(&self, text: &str, normalized: bool, specials: bool, work: &mut Work, ids: &mut Vec<u32>) {
        match normalized {
            _ if text.is_empty() => {}
            false => self.take_added(&self.normal(text), true, specials, work, ids),
            true => {
                let Work { caches, space } = work;
                split(&self.cuts, caches, text, &mut |word| self.word(word.as_bytes(), space, ids));
            }
        }
    }

    fn normal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        #[cfg(feature = "native")]
        if self.nfc {
            return super::split::nfc(text);
        }
        text.into()
    }

    /// Appends the tokens of a pre-token.
    fn word(&self, word: &[u8], space: &mut Space, ids: &mut Vec<u32>) {
        #[cfg(feature = "native")]
        {
            let Some(key) = Words::key(word) else { return self.merge(word, space, ids) };
            if let Some(known) = space.words.get(key) {
                return ids.extend(known);
            }
            let from = ids.len();
            self.merge(word, space, ids);
            space.words.put(key, &ids[from..]);
        }
        #[cfg(not(feature = "native"))]
        self.merge(word, space, ids)
    }

    fn merge(&self, word: &[u8], space: &mut Space, ids: &mut Vec<u32>) {
        if self.whole_words
            && let Some(id) = self.ids.get(word)
        {
            return ids.push(*id);
        }
        word.chunks(u32::MAX as usize).for_each(|word| self.merge_pairs(word, space, ids));
    }

    fn merge_pairs(&self, word: &[u8], space: &mut Space, ids: &mut Vec<u32>) {
        let Space { ids: parts, spans, queue, .. } = space;
        parts.clear();
        parts.extend(word.iter().map(|b| self.bytes[usize::from(*b)]));
        spans.clear();
        spans.resize(word.len(), 1);
        let entry = |parts: &[u32], left: usize, right: usize| {
            self.merges.get(&pair(parts[left], parts[right])).map(|(rank, _)| Reverse(pair(*rank, left as u32)))
        };
        queue.extend((1..word.len()).filter_map(|right| entry(parts, right - 1, right)));
        while let Some(Reverse(next)) = queue.pop() {
            let (rank, left) = ((next >> 32) as u32, next as u32 as usize);
            let right = left + spans[left] as usize;
            if parts[left] == GONE || right >= word.len() {
                continue;
            }
            // The entry is stale if one of its halves was merged into another pair meanwhile.
            let Some((_, id)) = self.merges.get(&pair(parts[left], parts[right])).filter(|m| m.0 == rank) else {
                continue;
            };
            let end = right + spans[right] as usize;
            (parts[left], parts[right]) = (*id, GONE);
            spans[left] = (end - left) as u32;
            spans[end - 1] = spans[left];
            if end < word.len() {
                queue.extend(entry(parts, left, end));
            }
            if left > 0 {
                queue.extend(entry(parts, left - spans[left - 1] as usize, left));
            }
        }
        let mut at = 0;
        while at < word.len() {
            ids.push(parts[at]);
            at += spans[at] as usize;
        }
    }
}

/// Most bytes of an added token. A place of a text is compared with no more of them.
const LONGEST_ADDED: usize = 1024;

/// The right half of a merged pair.
const GONE: u32 = u32::MAX;

/// A work space that merged a longer pre-token than this is not kept.
const KEPT: usize = 1 << 16;

/// A download has no room for the faster queue.
#[cfg(not(feature = "native"))]
type Queue = std::collections::BinaryHeap<Reverse<u64>>;

/// What encoding needs room for.
#[derive(Debug)]
struct Work {
    caches: Vec<Cache>,
    space: Space,
}

#[derive(Debug, Default)]
struct Space {
    /// At the first byte of each part of a pre-token its id, and [`GONE`] where one began.
    ids: Vec<u32>,
    /// At the first and the last byte of each part the number of its bytes.
    spans: Vec<u32>,
    /// Pairs that may be merged: [`pair`] of the rank and the first byte.
    queue: Queue,
    #[cfg(feature = "native")]
    words: Words,
}

/// Calls `each` with the pre-tokens of a text. There is one cache for each cut.
pub(super) fn split<'t>(cuts: &[Cut], caches: &mut [Cache], text: &'t str, each: &mut impl FnMut(&'t str)) {
    let (Some((cut, cuts)), Some((cache, caches))) = (cuts.split_first(), caches.split_first_mut()) else {
        return each(text);
    };
    let mut rest = text;
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(cut.first_part(rest, cache));
        split(cuts, caches, part, each);
        rest = tail;
    }
}

/// What the cuts remember while they split.
pub(super) fn caches(cuts: &[Cut]) -> Vec<Cache> {
    cuts.iter().map(Cut::cache).collect()
}

/// What a [`Cut`] remembers.
#[cfg(feature = "native")]
pub(super) type Cache = Option<super::split::Cache>;
#[cfg(not(feature = "native"))]
type Cache = ();

/// Two numbers in one, ordered by the first.
pub(super) fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// A hash of one [`pair`].
#[derive(Clone, Debug, Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a pair is one number");
    }

    fn write_u64(&mut self, pair: u64) {
        let mixed = (pair ^ pair >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Cut {
    /// Bytes of the first part of a non-empty text.
    #[cfg_attr(not(feature = "native"), expect(unused_variables, reason = "nothing is remembered"))]
    fn first_part(&self, text: &str, cache: &mut Cache) -> usize {
        let first = text.chars().next().expect("there is text");
        match self {
            Cut::EachDigit if first.is_numeric() => first.len_utf8(),
            Cut::Digits if first.is_numeric() => run(text, char::is_numeric),
            Cut::EachDigit | Cut::Digits => run(text, |c| !c.is_numeric()),
            #[cfg(any(test, not(feature = "native")))]
            Cut::Gpt2 => gpt2(text),
            #[cfg(feature = "native")]
            Cut::Expression(expression) => expression.first_part(text, cache.as_mut().expect("its cache")),
        }
    }

    fn cache(&self) -> Cache {
        #[cfg(feature = "native")]
        return match self {
            Cut::Expression(expression) => Some(expression.cache()),
            _ => None,
        };
    }
}

/// Bytes of the leading characters for which `belongs` holds.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Bytes of the first match of GPT-2's expression.
#[cfg(any(test, not(feature = "native")))]
fn gpt2(text: &str) -> usize {
    const ENDINGS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(ending) = ENDINGS.iter().find(|e| text.starts_with(**e)) {
        return ending.len();
    }
    let space = usize::from(text.starts_with(' '));
    let other = |c: char| !(c.is_whitespace() || is_letter(c) || c.is_numeric());
    for class in [&is_letter as &dyn Fn(char) -> bool, &char::is_numeric, &other] {
        let length = run(&text[space..], class);
        if length > 0 {
            return space + length;
        }
    }
    // `\s+(?!\S)|\s+`: the last white space character belongs to the next part, unless it is the only one or ends the text.
    let blank = run(text, char::is_whitespace);
    let last = text[..blank].chars().next_back().map_or(0, char::len_utf8);
    if blank == text.len() || blank == last { blank } else { blank - last }
}

/// Rejects features that this encoder does not support.
fn check(json: &Value) -> Result<(), String> {
    let model = &json["model"];
    // Older files do not name the type of a BPE.
    let bpe = model["type"].is_null() || model["type"] == "BPE";
    let byte_level = json["decoder"]["type"] == "ByteLevel";
    for (part, fits) in [("model", bpe), ("decoder", byte_level)] {
        if !fits {
            return Err(format!("the {part} {} is not supported", json[part]["type"]));
        }
    }
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        if !(model[key].is_null() || model[key] == "") {
            return Err(format!("`{key}` is not supported"));
        }
    }
    if model["byte_fallback"] == true {
        return Err("`byte_fallback` is not supported".into());
    }
    Ok(())
}

fn token_id(id: &Value, size: usize) -> Result<u32, String> {
    let known = id.as_u64().ok_or_else(|| format!("the id {id} is no number of a token"))?;
    super::check_ids(known, size).map(|()| known as u32)
}

#[cfg(any(test, not(feature = "native")))]
fn put(tokens: &mut Vec<Option<Box<[u8]>>>, id: u32, bytes: Box<[u8]>) {
    if tokens.len() <= id as usize {
        tokens.resize(id as usize + 1, None);
    }
    tokens[id as usize] = Some(bytes);
}

fn added_tokens(list: &Value, size: usize) -> Result<Vec<Added>, String> {
    let mut added = Vec::new();
    for token in list.as_array().into_iter().flatten() {
        let content = token["content"].as_str().filter(|c| !c.is_empty()).ok_or("an added token has no content")?;
        if let Some(key) = ["single_word", "lstrip", "rstrip"].iter().find(|key| token[**key] == true) {
            return Err(format!("`{key}` of the token {content} is not supported"));
        }
        if content.len() > LONGEST_ADDED {
            return Err(format!("an added token of more than {LONGEST_ADDED} bytes is not supported"));
        }
        added.push(Added {
            content: content.to_string(),
            id: token_id(&token["id"], size)?,
            special: token["special"] == true,
            normalized: token["normalized"] == true,
        });
    }
    Ok(added)
}

/// The steps of a pre-tokenizer that works on bytes. `expression` makes the step of an expression.
pub(super) fn cuts(json: &Value, expression: &dyn Fn(&str) -> Result<Cut, String>) -> Result<Vec<Cut>, String> {
    let steps = match &json["pretokenizers"] {
        Value::Array(steps) if json["type"] == "Sequence" => &steps[..],
        _ => std::slice::from_ref(json),
    };
    let (last, steps) = steps.split_last().ok_or("it has no pre-tokenizer")?;
    let step = |step: &Value| match step["type"].as_str() {
        Some("Digits") if step["individual_digits"] == true => Ok(Cut::EachDigit),
        Some("Digits") => Ok(Cut::Digits),
        Some("Split") if step["behavior"] == "Isolated" => {
            expression(step["pattern"]["Regex"].as_str().ok_or("`Split` at a text is not supported")?)
        }
        _ => Err(format!("the pre-tokenizer {step} is not supported")),
    };
    let mut cuts: Vec<Cut> = steps.iter().map(step).collect::<Result<_, _>>()?;
    if last["type"] != "ByteLevel" || last["add_prefix_space"] == true {
        return Err(format!("the pre-tokenizer {last} is not supported as the last"));
    }
    if last["use_regex"] != false {
        cuts.push(expression(GPT2)?);
    }
    Ok(cuts)
}

/// The step of the only expression that a browser has.
#[cfg(any(test, not(feature = "native")))]
fn only_gpt2(expression: &str) -> Result<Cut, String> {
    if expression == GPT2 { Ok(Cut::Gpt2) } else { Err(format!("the expression {expression} is not supported")) }
}
