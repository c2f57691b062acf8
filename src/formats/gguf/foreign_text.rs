//! Tokenizers of other programs, from the keys of a file, as the text of a `tokenizer.json`.

use crate::tokenizer::{GPT2, LLAMA3, QWEN2, level};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

/// Longest piece of a SentencePiece vocabulary in bytes: how it can be put together is tried at every character.
const LONGEST: usize = 128;
/// Most merges for each piece; vocabularies in use have about two.
const MERGES: usize = 16;

/// Expressions that split a text one after another.
fn splits(expressions: &[&str]) -> Json {
    let split = |e: &&str| json!({"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": false});
    let steps: Vec<Json> = expressions.iter().map(split).chain([level(false)]).collect();
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// How a byte-level BPE cuts text whose kind llama.cpp calls `pre`, and whether a word that is a token is left whole. None for a kind
/// that is not known.
pub(super) fn cut(pre: Option<&str>) -> Option<(Json, bool)> {
    Some(match pre {
        // The key is younger than the kind of model, which is named after the expression.
        None | Some("gpt-2" | "mpt" | "olmo") => (level(true), false),
        Some("smollm" | "starcoder" | "refact" | "command-r") => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            (json!({"type": "Sequence", "pretokenizers": [digits, level(true)]}), false)
        }
        Some(pre) if begins_with_bos(pre) => (splits(&[LLAMA3]), true),
        Some("qwen2" | "deepseek-r1-qwen" | "stablelm2") => (splits(&[QWEN2]), false),
        Some("falcon") => (splits(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]), false),
        Some("deepseek-coder") => {
            let cjk = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
            (splits(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", cjk, r"\p{N}"]), false)
        }
        Some(_) => return None,
    })
}

/// The inverse of [`cut`] for a whole `tokenizer.json`; none if llama.cpp has no name for how it cuts text.
pub(super) fn name_of(json: &Json) -> Option<&'static str> {
    let whole_words = json["model"]["ignore_merges"] == true;
    ["gpt-2", "smollm", "llama-bpe", "qwen2", "falcon", "deepseek-coder"].into_iter().find(|name| {
        cut(Some(name)).is_some_and(|(pre, whole)| steps(&pre) == steps(&json["pre_tokenizer"]) && whole == whole_words)
    })
}

/// The steps of a pre-tokenizer, each as what changes its result.
fn steps(pre: &Json) -> Vec<[Json; 7]> {
    let keys = ["type", "pattern", "behavior", "invert", "individual_digits", "add_prefix_space", "use_regex"];
    let list = pre["pretokenizers"].as_array().map_or(std::slice::from_ref(pre), Vec::as_slice);
    let of = |step: &Json, key: &str| match &step[key] {
        Json::Null if key == "use_regex" && step["type"] == "ByteLevel" => true.into(),
        value => value.clone(),
    };
    list.iter().map(|step| keys.map(|key| of(step, key))).collect()
}

/// Whether this kind is that of Llama 3, whose texts begin with a token where no key says otherwise.
pub(super) fn begins_with_bos(pre: &str) -> bool {
    ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"].contains(&pre)
}

/// Pieces of a SentencePiece vocabulary with their scores (Kudo and Richardson 2018).
pub(in crate::formats) struct Pieces<'a> {
    pub tokens: &'a [&'a str],
    pub scores: &'a [f32],
    /// The [`Kind`] of each.
    pub kind: &'a dyn Fn(usize) -> u64,
    /// The piece for what no other spells, where it is not the one of that kind.
    pub unknown: Option<usize>,
    /// Whether a text begins with a blank.
    pub prefix: bool,
}

/// Kinds of token, numbered as in SentencePiece and GGUF.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
}

impl Pieces<'_> {
    /// A BPE that joins the pair whose joined piece has the highest score. The error says what is wrong.
    pub fn to_json(&self) -> Result<String, String> {
        let merges = self.merges()?;
        let used = || (0..self.tokens.len()).filter(|id| !self.is(*id, Kind::Unused));
        let vocab: Map<String, Json> = used().map(|id| (self.tokens[id].to_string(), id.into())).collect();
        let unknown = self.unknown.or_else(|| used().find(|id| self.is(*id, Kind::Unknown)));
        let blank = "\u{2581}";
        let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let [mut before, mut after] = [vec![replace(" ", blank)], vec![replace(blank, " ")]];
        after.extend([json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]);
        if self.prefix {
            before.insert(0, json!({"type": "Prepend", "prepend": blank}));
            after.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let added = used().filter(|id| self.is(*id, Kind::Control) || self.is(*id, Kind::UserDefined)).map(|id| {
            json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": self.is(id, Kind::Control)})
        });
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": {"type": "Sequence", "normalizers": before}, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": after},
            "model": {"type": "BPE", "dropout": null, "unk_token": unknown.map(|id| self.tokens[id]),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false, "vocab": vocab, "merges": merges}})
        .to_string())
    }

    fn is(&self, id: usize, kind: Kind) -> bool {
        (self.kind)(id) == kind as u64
    }

    /// Every pair of pieces that makes a piece, the highest score first.
    fn merges(&self) -> Result<Vec<[&str; 2]>, String> {
        let texts = || (0..self.tokens.len()).filter(|id| self.is(*id, Kind::Normal));
        let ids: HashMap<&str, usize> = texts().map(|id| (self.tokens[id], id)).collect();
        let (mut found, most) = (Vec::new(), MERGES * self.tokens.len() + (1 << 10));
        for id in texts() {
            let piece = self.tokens[id];
            if piece.len() > LONGEST {
                return Err(format!("the token {id} has {} bytes: at most {LONGEST} are possible", piece.len()));
            }
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                    found.push((self.scores[id], [*l, *r]));
                }
            }
            if found.len() > most {
                return Err(format!("its tokens can be put together in more than {most} ways"));
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok(found.into_iter().map(|(_, pair)| pair.map(|id| self.tokens[id])).collect())
    }
}
