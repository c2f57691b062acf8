//! The tokenizer as keys: `tokenizer.ggml.*` for other programs, and the whole `tokenizer.json` for this one.
//!
//! Other programs call a byte-level BPE the model "gpt2". They cut text with an expression that has a name: `smollm` is
//! GPT-2's expression with every digit by itself, as this program trains BPEs; `gpt-2` is GPT-2's own. The tokenizer of raw
//! bytes has no merges, so any expression gives its ids. Other tokenizers are written as the model "none", which loads
//! without a vocabulary. Files of other programs have no `tokenizer.json`; it is made from their tokens and merges.

use super::super::TextConfig;
use super::foreign_text::{self, Kind};
use super::keys::{KeyWriter, Keys};
use super::read::{Array, Gguf, Value};
use crate::tokenizer::{byte_level_json, parse_json};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const PAD: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
const END_NAMES: [&str; 5] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"];
const TEMPLATE: &str = "tokenizer.chat_template";
const FULL: &str = "tokenizer.huggingface.json";
/// The ids at which generation stops.
pub(in crate::formats) const STOP: &str = "nanotern.stop_token_ids";

/// The name of a way of cutting text for which other programs have none.
const UNNAMED: &str = "default";

/// Largest number of ids at which generation stops.
const MAX_STOP: usize = 64;

/// A byte-level BPE in the spelling of other programs.
struct Bpe {
    tokens: Vec<String>,
    kinds: Vec<Kind>,
    merges: Vec<String>,
    pre: &'static str,
}

pub(super) fn write(text: &TextConfig, vocab: usize, out: &mut KeyWriter) -> Result<(), String> {
    match text.tokenizer_json.as_deref().map(|json| bpe(json, vocab)).transpose()?.flatten() {
        Some(bpe) => {
            out.str(MODEL, "gpt2");
            out.str(PRE, bpe.pre);
            out.strings(TOKENS, &bpe.tokens);
            out.i32s(KINDS, bpe.kinds.iter().map(|k| *k as i32));
            out.strings(MERGES, &bpe.merges);
            out.bool(ADD_BOS, text.add_bos);
        }
        None => {
            out.str(MODEL, "none");
            if text.add_bos != implied_start(text.tokenizer_json.as_deref()).is_some() {
                out.bool(ADD_BOS, text.add_bos);
            }
        }
    }
    if text.add_eos {
        out.bool(ADD_EOS, true);
    }
    for (key, id) in [(BOS, text.bos), (EOS, text.eos), (UNK, text.unk), (PAD, text.pad)] {
        if let Some(id) = id {
            out.u32(key, id);
        }
    }
    if !text.stop.is_empty() {
        out.u32s(STOP, &text.stop);
    }
    for (key, text) in [(TEMPLATE, &text.chat_template), (FULL, &text.tokenizer_json)] {
        if let Some(text) = text {
            out.str(key, text);
        }
    }
    Ok(())
}

/// Reads the tokenizer; `vocab` is the number of rows of the embedding.
pub(super) fn read(file: &Gguf<'_>, vocab: usize) -> Result<TextConfig, String> {
    let keys = Keys { file };
    if let Some(tokens) = keys.get(TOKENS, "an array of strings", |v| v.as_array().filter(|a| a.strings().is_some()))?
        && tokens.len != vocab
    {
        return Err(format!("key {TOKENS:?} has {} tokens, the vocabulary has {vocab}", tokens.len));
    }
    let id = |key: &str| keys.get(key, "a token id", |v| v.as_u64().and_then(|v| u32::try_from(v).ok()));
    let eos = id(EOS)?;
    let ids = |v: &Value<'_>| {
        let ids = v.as_array().filter(|a| a.len <= MAX_STOP)?.uints()?;
        ids.into_iter().map(|id| u32::try_from(id).ok()).collect::<Option<Vec<u32>>>()
    };
    let stop = keys.get(STOP, &format!("an array of at most {MAX_STOP} token ids"), ids)?;
    let (tokenizer_json, no_tokenizer) = match keys.str(FULL)? {
        Some(json) => (Some(json.to_string()), None),
        None => match spelled_out(&keys)? {
            Ok(json) => (json, None),
            Err(why) => (None, Some(why)),
        },
    };
    let implied = implied_start(tokenizer_json.as_deref());
    // Other programs write no key where their readers know what a kind of tokenizer does.
    let usual = || {
        let begins = match (keys.str(MODEL)?, keys.str(PRE)?) {
            (Some("llama"), _) => true,
            (_, Some(pre)) => foreign_text::begins_with_bos(pre),
            _ => false,
        };
        Ok::<_, String>(implied.is_some() || cfg!(feature = "native") && begins)
    };
    let add_bos = keys.bool(ADD_BOS)?.map_or_else(usual, Ok)?;
    let add_eos = cfg!(feature = "native") && keys.bool(ADD_EOS)?.unwrap_or(false);
    // Only the templates of others read these.
    let named = |key| if cfg!(feature = "native") { id(key) } else { Ok(None) };
    Ok(TextConfig {
        tokenizer_json,
        no_tokenizer,
        bos: id(BOS)?.or(implied),
        unk: named(UNK)?,
        pad: named(PAD)?,
        add_bos,
        add_eos,
        stop: stop.map_or_else(|| ends(&keys, eos), Ok)?,
        eos,
        chat_template: keys.str(TEMPLATE)?.map(String::from),
    })
}

/// The ids at which other programs stop: the ends of a text, of a turn and of a message, and tokens with the usual names of these.
fn ends(keys: &Keys<'_, '_>, eos: Option<u32>) -> Result<Vec<u32>, String> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in ENDS {
        ends.extend(keys.size(key)?.and_then(|id| u32::try_from(id).ok()));
    }
    let tokens = keys.file.keys.get(TOKENS).and_then(Value::as_array);
    for (id, token) in tokens.iter().filter_map(Array::strings).flatten().enumerate() {
        if END_NAMES.contains(&token) {
            ends.push(id as u32);
        }
    }
    let mut seen = BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    Ok(ends)
}

/// The id that the post-processor of a `tokenizer.json` puts before every text. In a browser only the key counts.
pub(in crate::formats) fn implied_start(json: Option<&str>) -> Option<u32> {
    if !cfg!(feature = "native") {
        return None;
    }
    let json = parse_json(json.filter(|json| json.contains("Processing\""))?).ok()?;
    let post = &json["post_processor"];
    let steps = post["processors"].as_array().map_or(std::slice::from_ref(post), Vec::as_slice);
    steps
        .iter()
        .find_map(|step| match step["type"].as_str()? {
            "TemplateProcessing" => {
                let name = step["single"][0]["SpecialToken"]["id"].as_str()?;
                step["special_tokens"][name]["ids"][0].as_u64()
            }
            "BertProcessing" | "RobertaProcessing" => step["cls"][1].as_u64(),
            _ => None,
        })?
        .try_into()
        .ok()
}

/// The `tokenizer.json` for the tokens and merges, if there are any. The inner error says why none can be made; the weights
/// can be used without it.
fn spelled_out(keys: &Keys<'_, '_>) -> Result<Result<Option<String>, String>, String> {
    let strings = |key: &str| {
        keys.get(key, "an array of strings", |v| v.as_array()?.strings().map(Iterator::collect::<Vec<&str>>))
    };
    let Some(tokens) = strings(TOKENS)? else { return Ok(Ok(None)) };
    let (model, pre) = (keys.str(MODEL)?.unwrap_or("none"), keys.str(PRE)?);
    let ints = |v: &Value<'_>| v.as_array().filter(|a| a.len == tokens.len())?.uints();
    let kinds = keys.get(KINDS, "an array with the kind of each token", ints)?;
    let kind = |id: usize| kinds.as_ref().map_or(Kind::Normal as u64, |kinds| kinds[id]);
    let is = |id: usize, kinds: &[Kind]| kinds.iter().any(|k| *k as u64 == kind(id));
    let used = || tokens.iter().enumerate().filter(|(id, _)| !is(*id, &[Kind::Unused]));
    let vocab = used().map(|(id, token)| (token.to_string(), id.into())).collect();
    let added = used().filter(|(id, _)| is(*id, &[Kind::Control, Kind::UserDefined]));
    let added: Vec<_> = added.map(|(id, token)| (id, *token, is(id, &[Kind::Control]))).collect();
    match model {
        "gpt2" => {
            let Some(cut) = foreign_text::cut(pre) else {
                return Ok(Err(format!("{PRE} is {:?}: this kind is unknown", pre.unwrap_or_default())));
            };
            let Some(merges) = strings(MERGES)? else { return Ok(Err(format!("{MERGES} is missing"))) };
            Ok(Ok(Some(byte_level_json(vocab, &merges, &added, cut))))
        }
        "llama" => {
            let floats = |v: &Value<'_>| v.as_array().filter(|a| a.len == tokens.len())?.floats();
            let Some(scores) = keys.get(SCORES, "an array with the score of each token", floats)? else {
                return Ok(Err(format!("{SCORES} is missing")));
            };
            let named = keys.size(UNK)?.filter(|id| *id < tokens.len());
            let pieces = foreign_text::Pieces {
                tokens: &tokens,
                scores: &scores,
                kind: &kind,
                unknown: named,
                prefix: keys.bool(PREFIX)?.unwrap_or(true),
            };
            Ok(pieces.to_json().map(Some))
        }
        _ => Ok(Err(format!("{MODEL} is {model:?}: \"gpt2\" and \"llama\" can be read"))),
    }
}

/// The vocabulary of a `tokenizer.json` with `vocab` tokens; none if it is not a byte-level BPE.
fn bpe(json: &str, vocab: usize) -> Result<Option<Bpe>, String> {
    let json = parse_json(json).map_err(|e| format!("tokenizer.json: {e}"))?;
    let model = &json["model"];
    let level = |j: &Json| j["type"] == "ByteLevel";
    let (Some(entries), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(None);
    };
    if model["type"] != "BPE" || !level(&json["decoder"]) || !json["normalizer"].is_null() {
        return Ok(None);
    }
    let mut by_id: BTreeMap<u64, (&str, Kind)> = BTreeMap::new();
    for (token, id) in entries {
        by_id.insert(id.as_u64().ok_or("tokenizer.json: an id is no number")?, (token, Kind::Normal));
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) {
            by_id.insert(id, (content, if added["special"] == true { Kind::Control } else { Kind::UserDefined }));
        }
    }
    if let Some((id, _)) = by_id.last_key_value().filter(|(id, _)| **id >= vocab as u64) {
        return Err(format!("tokenizer.json has the id {id}, the embedding only {vocab} rows"));
    }
    let token = |id: usize| match by_id.get(&(id as u64)) {
        Some((token, kind)) => (token.to_string(), *kind),
        None => (format!("[UNUSED{id}]"), Kind::Unused),
    };
    let (tokens, kinds) = (0..vocab).map(token).unzip();
    let merge = |m: &Json| match (m.as_str(), m[0].as_str(), m[1].as_str()) {
        (Some(both), ..) => Some(both.to_string()),
        (_, Some(a), Some(b)) => Some(format!("{a} {b}")),
        _ => None,
    };
    let merges = merges.iter().map(merge).collect::<Option<Vec<_>>>();
    let pre = foreign_text::name_of(&json).unwrap_or(UNNAMED);
    Ok(merges.map(|merges| Bpe { tokens, kinds, pre: if merges.is_empty() { "gpt-2" } else { pre }, merges }))
}

/// What other programs do not get of the tokenizer in a file, for the end of a sentence about them.
#[cfg(feature = "native")]
pub(in crate::formats) fn lost(text: &TextConfig, vocab: usize) -> &'static str {
    match text.tokenizer_json.as_deref().map(|json| bpe(json, vocab)) {
        Some(Ok(Some(bpe))) if bpe.pre != UNNAMED => "",
        Some(Ok(Some(_))) => "; they have no name for how its tokenizer cuts text, and may cut otherwise",
        Some(_) => "; they have no name for its tokenizer, and load it without a vocabulary",
        None => "; it has no tokenizer",
    }
}
