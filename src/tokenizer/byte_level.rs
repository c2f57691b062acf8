//! A byte-level BPE without dependencies, for builds in which the `tokenizers` crate would be too large. It reads the same
//! `tokenizer.json` and gives the same ids; tests compare the two. A file that needs an unsupported feature is rejected with
//! the feature's name.
//!
//! Encoding has three steps. Added tokens are extracted; the text between them is split into pre-tokens, by GPT-2's
//! expression and by digits; in each pre-token, pairs are merged, the lowest rank first, the leftmost of equal ranks first.

use super::byte_char;
use super::letters::is_letter;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A token that is matched verbatim in the text.
#[derive(Clone, Debug)]
struct Added {
    content: String,
    id: u32,
    special: bool,
    /// Normalized tokens are matched after all others.
    normalized: bool,
}

/// How text between added tokens is split.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// Each digit is a pre-token.
    EachDigit,
    /// Each run of digits is a pre-token.
    Digits,
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
}

/// A loaded `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct ByteLevel {
    json: String,
    /// The bytes of each id.
    tokens: Vec<Option<Box<[u8]>>>,
    /// Ids of the tokens of the model's vocabulary, by their bytes.
    ids: HashMap<Box<[u8]>, u32>,
    /// Ids of the 256 bytes.
    bytes: Vec<u32>,
    /// (left, right) -> (rank, merged token).
    merges: HashMap<(u32, u32), (u32, u32)>,
    added: Vec<Added>,
    cuts: Vec<Cut>,
    /// A pre-token that is in the vocabulary becomes that token without merging.
    whole_words: bool,
}

impl ByteLevel {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let model = &json["model"];
        check(&json)?;
        let char_byte: HashMap<char, u8> = (0..=255u8).map(|b| (byte_char(b), b)).collect();
        let spelled = |token: &str| token.chars().map(|c| char_byte.get(&c).copied()).collect::<Option<Box<[u8]>>>();
        let added = added_tokens(&json["added_tokens"])?;
        let (mut tokens, mut ids) = (Vec::new(), HashMap::new());
        for (token, id) in model["vocab"].as_object().ok_or("it has no vocabulary")? {
            let id = token_id(id)?;
            let bytes = spelled(token);
            if let Some(bytes) = &bytes {
                ids.insert(bytes.clone(), id);
            }
            put(&mut tokens, id, bytes.unwrap_or_else(|| token.as_bytes().into()));
        }
        added.iter().for_each(|a| put(&mut tokens, a.id, a.content.as_bytes().into()));
        let bytes = (0..=255u8).map(|b| ids.get(&[b][..]).copied().ok_or(format!("it has no token for the byte {b}")));
        let bytes = bytes.collect::<Result<_, _>>()?;
        let mut merges = HashMap::new();
        for (rank, merge) in model["merges"].as_array().ok_or("it has no merges")?.iter().enumerate() {
            let bad = || format!("merge {rank} is {merge}: it must join two tokens into one");
            let id = |token: &str| spelled(token).and_then(|bytes| ids.get(&bytes).copied().map(|id| (bytes, id)));
            let (left, right) = match merge.as_str() {
                Some(both) => both.split_once(' ').ok_or_else(bad)?,
                None => merge[0].as_str().zip(merge[1].as_str()).ok_or_else(bad)?,
            };
            let ((left, l), (right, r)) = id(left).zip(id(right)).ok_or_else(bad)?;
            let both = ids.get(&[left, right].concat()[..]).ok_or_else(bad)?;
            merges.insert((l, r), (rank as u32, *both));
        }
        let whole_words = model["ignore_merges"] == true;
        let cuts = cuts(&json["pre_tokenizer"])?;
        Ok(ByteLevel { json: text.to_string(), tokens, ids, bytes, merges, added, cuts, whole_words })
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

    pub(super) fn encode(&self, text: &str, specials: bool) -> Vec<u32> {
        let mut ids = Vec::new();
        self.take_added(text, false, specials, &mut ids);
        ids
    }

    /// Extracts the added tokens with this `normalized` flag and encodes the text between them.
    fn take_added(&self, text: &str, normalized: bool, specials: bool, ids: &mut Vec<u32>) {
        let mut rest = text;
        while let Some((at, added)) = self.first_added(rest, normalized, specials) {
            self.encode_plain(&rest[..at], normalized, specials, ids);
            ids.push(added.id);
            rest = &rest[at + added.content.len()..];
        }
        self.encode_plain(rest, normalized, specials, ids);
    }

    /// The leftmost added token; the longest if several start there.
    fn first_added(&self, text: &str, normalized: bool, specials: bool) -> Option<(usize, &Added)> {
        let wanted = |a: &&Added| a.normalized == normalized && (specials || !a.special);
        let longest_at = |at: usize| {
            let found = self.added.iter().filter(wanted).filter(|a| text[at..].starts_with(&a.content));
            found.max_by_key(|a| a.content.len()).map(|a| (at, a))
        };
        text.char_indices().find_map(|(at, _)| longest_at(at))
    }

    fn encode_plain(&self, text: &str, normalized: bool, specials: bool, ids: &mut Vec<u32>) {
        match normalized {
            _ if text.is_empty() => {}
            false => self.take_added(text, true, specials, ids),
            true => self.cut(text, &self.cuts, ids),
        }
    }

    fn cut(&self, text: &str, cuts: &[Cut], ids: &mut Vec<u32>) {
        let Some((cut, later)) = cuts.split_first() else { return self.merge(text.as_bytes(), ids) };
        let mut rest = text;
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(cut.first_part(rest));
            self.cut(part, later, ids);
            rest = tail;
        }
    }

    /// Appends the tokens of a pre-token.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        if self.whole_words
            && let Some(id) = self.ids.get(word)
        {
            return ids.push(*id);
        }
        let mut parts: Vec<Part> =
            word.iter().enumerate().map(|(i, b)| Part::new(self.bytes[usize::from(*b)], i)).collect();
        let end = parts.len();
        let pair = |parts: &[Part], left: usize| {
            let right = parts[left].next;
            let merge = (right < end).then(|| self.merges.get(&(parts[left].id, parts[right].id)))?;
            merge.map(|(rank, id)| Reverse((*rank, left, *id)))
        };
        let mut heap: BinaryHeap<_> = (0..end).filter_map(|i| pair(&parts, i)).collect();
        while let Some(Reverse((rank, left, id))) = heap.pop() {
            // The entry is stale if one of its halves was merged into another pair meanwhile.
            if parts[left].gone || pair(&parts, left) != Some(Reverse((rank, left, id))) {
                continue;
            }
            let right = parts[left].next;
            let after = parts[right].next;
            parts[right].gone = true;
            parts[left].id = id;
            parts[left].next = after;
            if after < end {
                parts[after].previous = left;
            }
            heap.extend(pair(&parts, left));
            let previous = parts[left].previous;
            if previous < end {
                heap.extend(pair(&parts, previous));
            }
        }
        ids.extend(parts.iter().filter(|p| !p.gone).map(|p| p.id));
    }
}

/// A token of a pre-token during merging, in a linked list by index. An index past the end means none.
struct Part {
    id: u32,
    previous: usize,
    next: usize,
    gone: bool,
}

impl Part {
    fn new(id: u32, at: usize) -> Part {
        Part { id, previous: at.wrapping_sub(1), next: at + 1, gone: false }
    }
}

impl Cut {
    /// Bytes of the first part of a non-empty text.
    fn first_part(self, text: &str) -> usize {
        let first = text.chars().next().expect("there is text");
        match self {
            Cut::EachDigit if first.is_numeric() => first.len_utf8(),
            Cut::Digits if first.is_numeric() => run(text, char::is_numeric),
            Cut::EachDigit | Cut::Digits => run(text, |c| !c.is_numeric()),
            Cut::Gpt2 => gpt2(text),
        }
    }
}

/// Bytes of the leading characters for which `belongs` holds.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Bytes of the first match of GPT-2's expression.
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
    for (part, fits) in [("model", bpe), ("decoder", byte_level), ("normalizer", json["normalizer"].is_null())] {
        if !fits {
            return Err(format!("the {part} {} is not supported", json[part]["type"]));
        }
    }
    for key in ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
        if !(model[key].is_null() || model[key] == "") {
            return Err(format!("`{key}` is not supported"));
        }
    }
    if model["byte_fallback"] == true {
        return Err("`byte_fallback` is not supported".into());
    }
    Ok(())
}

fn token_id(id: &Value) -> Result<u32, String> {
    let known = id.as_u64().filter(|id| *id < super::MAX_VOCAB as u64);
    let beyond = || format!("it has id {id}, but the largest possible is {}", super::MAX_VOCAB - 1);
    known.map(|id| id as u32).ok_or_else(beyond)
}

fn put(tokens: &mut Vec<Option<Box<[u8]>>>, id: u32, bytes: Box<[u8]>) {
    if tokens.len() <= id as usize {
        tokens.resize(id as usize + 1, None);
    }
    tokens[id as usize] = Some(bytes);
}

fn added_tokens(list: &Value) -> Result<Vec<Added>, String> {
    let mut added = Vec::new();
    for token in list.as_array().into_iter().flatten() {
        let content = token["content"].as_str().filter(|c| !c.is_empty()).ok_or("an added token has no content")?;
        if let Some(key) = ["single_word", "lstrip", "rstrip"].iter().find(|key| token[**key] == true) {
            return Err(format!("`{key}` of the token {content} is not supported"));
        }
        added.push(Added {
            content: content.to_string(),
            id: token_id(&token["id"])?,
            special: token["special"] == true,
            normalized: token["normalized"] == true,
        });
    }
    Ok(added)
}

fn cuts(json: &Value) -> Result<Vec<Cut>, String> {
    let unsupported = || Err(format!("the pre-tokenizer {json} is not supported"));
    match json["type"].as_str() {
        None if json.is_null() => Ok(Vec::new()),
        Some("Sequence") => {
            let steps = json["pretokenizers"].as_array().into_iter().flatten().map(cuts);
            Ok(steps.collect::<Result<Vec<_>, _>>()?.concat())
        }
        Some("Digits") if json["individual_digits"] == true => Ok(vec![Cut::EachDigit]),
        Some("Digits") => Ok(vec![Cut::Digits]),
        Some("ByteLevel") if json["add_prefix_space"] == true => unsupported(),
        Some("ByteLevel") if json["use_regex"] == false => Ok(Vec::new()),
        Some("ByteLevel") => Ok(vec![Cut::Gpt2]),
        _ => unsupported(),
    }
}
