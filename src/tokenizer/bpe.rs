//! Reads `tokenizer.json` with the `tokenizers` crate.
//!
//! A byte-level BPE is encoded by our own code, all others by the crate. Long texts are encoded in pieces on all cores, cut
//! where no pre-token ends otherwise, so the ids equal those of the whole text.

use super::bounded::Bounded;
use super::byte_char;
use super::byte_level::{self, ByteLevel};
use super::decode::steps::{Step, steps};
use super::split::{self, Ends};
use crate::error::caught;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use tokenizers::DecoderWrapper;

/// Least bytes of a piece, except the last.
const PIECE: usize = 1 << 15;

pub(super) static CHAR_BYTE: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255u8).map(|b| (byte_char(b), b)).collect());

/// A loaded `tokenizer.json`.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) encoder: Encoder,
    vocab_size: usize,
    /// What the model makes of a text that it has no token for.
    pub(super) unknown: Option<u32>,
    pub(super) byte_level: bool, // tokens are spelled with `byte_char`
    pub(super) steps: Vec<Step>, // how other tokens become text
}

/// Who encodes.
#[derive(Clone, Debug)]
pub(super) enum Encoder {
    /// Our own code, and where it may cut texts, if that is known.
    Ours(Box<ByteLevel>, Option<Ends>),
    /// The crate. For this copy of the tokenizer the spelling of a special token is text.
    Crate(Box<(Bounded, tokenizers::Tokenizer)>),
}

impl Json {
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let mut value = super::parse_json(json)?;
        // Dropout is for the training of a model by the crate: the same text must always give the same ids.
        let dropout = value.pointer_mut("/model/dropout").map_or(Value::Null, Value::take);
        let json: Cow<str> = if dropout.is_null() { json.into() } else { value.to_string().into() };
        let bounded = Bounded::new(&value)?;
        let mut inner = read(&json, &value, &bounded)?;
        inner.with_padding(None).with_truncation(None).map_err(|e| e.to_string())?;
        let vocab = inner.get_vocab(true);
        let largest = *vocab.values().max().ok_or("its vocabulary is empty")?;
        super::check_ids(largest.into(), vocab.len())?;
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let steps = steps(inner.get_decoder());
        let unknown = unknown(&value["model"], &inner);
        let encoder = match ours(&value, &inner) {
            Some(ours) => ours,
            None => {
                let plain = plain(value, &inner, &bounded)?;
                Encoder::Crate(Box::new((bounded, plain)))
            }
        };
        let json = Self { inner, encoder, vocab_size: largest as usize + 1, unknown, byte_level, steps };
        // No vocabulary contains a character of the private-use area, so a model that cannot encode every text fails here.
        json.encode("a 1\u{10fffd}\n", true).map_err(|e| format!("it cannot encode every text: {e}"))?;
        Ok(json)
    }

    pub(super) fn to_json(&self) -> String {
        self.inner.to_string(false).expect("a tokenizer that was read can be written")
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, String> {
        match &self.encoder {
            Encoder::Ours(ours, _) => match &split::pieces(text, PIECE, |text, from| self.cut(text, from))[..] {
                [piece] => ours.encode(piece, specials),
                pieces => {
                    let ids = pieces.into_par_iter().map(|piece| ours.encode(piece, specials));
                    Ok(ids.collect::<Result<Vec<_>, _>>()?.concat())
                }
            },
            Encoder::Crate(both) => {
                let (bounded, plain) = &**both;
                let tokenizer = if specials { &self.inner } else { plain };
                bounded.encode(text, tokenizer.get_added_vocabulary(), tokenizer)
            }
        }
    }

    pub(super) fn cut(&self, text: &str, from: usize) -> Option<usize> {
        let Encoder::Ours(ours, Some(ends)) = &self.encoder else { return None };
        let mut spans = ours.added_spans(text, from);
        ends.cuts(text, from).find(|&at| !spans(at))
    }

    /// The token as the vocabulary spells it.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes of a token of a byte-level vocabulary.
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some(added) = self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
            return Some(added.content.clone().into_bytes());
        }
        let token = self.token(id)?;
        let bytes: Option<Vec<u8>> = token.chars().map(|c| CHAR_BYTE.get(&c).copied()).collect();
        Some(bytes.unwrap_or_else(|| token.into_bytes()))
    }

    pub(super) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        // A vocabulary may have the same token twice.
        added.get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
            || self.token(id).is_some_and(|token| added.is_special_token(&token))
    }
}

/// Parses a text with the `tokenizers` crate; `value` is the same. The crate panics at some inputs, such as a decoder that is
/// not JSON or a broken table of normalisations.
fn read(json: &str, value: &Value, bounded: &Bounded) -> Result<tokenizers::Tokenizer, String> {
    bounded.check_added(value)?;
    let tokenizer = caught(|| tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|e| e.to_string()));
    tokenizer.unwrap_or_else(|_| Err("one of its parts is damaged".to_string()))
}

/// The id of a model's unknown token, which `Unigram` has by its number and the others by its name.
fn unknown(model: &Value, inner: &tokenizers::Tokenizer) -> Option<u32> {
    let named = || inner.token_to_id(model["unk_token"].as_str()?);
    model["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok()).or_else(named)
}

/// The tokenizer for texts: the same ids, but no spelling gives a special token. A model may have its special tokens among
/// its words; here their names begin with what nobody can know. Only one of a single character stays, as a text may have no
/// other token for that.
fn plain(mut json: Value, inner: &tokenizers::Tokenizer, bounded: &Bounded) -> Result<tokenizers::Tokenizer, String> {
    let added = inner.get_added_vocabulary().get_added_tokens_decoder().values();
    let special: HashSet<&str> = added.filter(|t| t.special).map(|t| &*t.content).collect();
    let special = |text: &str| text.chars().nth(1).is_some() && special.contains(text);
    let hidden = format!("\u{10fffe}{:016x}", RandomState::new().build_hasher().finish());
    let hide = |name: &mut Value| {
        if let Some(text) = name.as_str().filter(|text| special(text)) {
            *name = format!("{hidden}{text}").into();
        }
    };
    let model = &mut json["model"];
    match &mut model["vocab"] {
        Value::Object(ids) => {
            let named = std::mem::take(ids).into_iter();
            *ids = named.map(|(n, id)| (if special(&n) { format!("{hidden}{n}") } else { n }, id)).collect();
        }
        pieces => pieces.as_array_mut().into_iter().flatten().for_each(|piece| hide(&mut piece[0])),
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            let pair =
                merge.as_str().and_then(|both| both.split_once(' ')).or(merge[0].as_str().zip(merge[1].as_str()));
            pair.is_none_or(|(l, r)| ![l, r, &[l, r].concat()].into_iter().any(special))
        });
    }
    hide(&mut model["unk_token"]);
    json["added_tokens"].as_array_mut().into_iter().flatten().for_each(|token| hide(&mut token["content"]));
    (json["padding"], json["truncation"], json["post_processor"]) = (Value::Null, Value::Null, Value::Null);
    let mut plain = read(&json.to_string(), &json, bounded)?;
    plain.set_encode_special_tokens(true);
    Ok(plain)
}

/// Our own encoder, if it does all that this tokenizer needs.
fn ours(json: &Value, inner: &tokenizers::Tokenizer) -> Option<Encoder> {
    let mut ours = ByteLevel::new(json, byte_level::cuts(&json["pre_tokenizer"], &split::cut).ok()?).ok()?;
    ours.nfc = match &json["normalizer"] {
        Value::Null => false,
        normalizer => normalizer["type"] == "NFC" && !ours.added.iter().any(|a| a.normalized),
    };
    // The crate may give an added token another id than the file says.
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let same = ours.added.iter().all(|a| added.get(&a.id).is_some_and(|t| t.content == a.content));
    let does_all = same && added.len() == ours.added.len() && ours.nfc != json["normalizer"].is_null();
    let ends = Ends::new(&ours.cuts, ours.nfc);
    does_all.then(|| Encoder::Ours(Box::new(ours), ends))
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use serde_json::{Value, json};

    const SPECIAL: [&str; 4] = ["[UNK]", "</s>", "[SEP]", "<|im_end|>"];

    fn file(model: Value, pre_tokenizer: Value) -> Value {
        let added = SPECIAL.iter().enumerate().map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        let size = model["vocab"].as_object().map_or(300, |vocab| vocab.len());
        let plain = json!({"id": size, "content": "<tool>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false});
        json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "post_processor": null, "added_tokens": added.chain([plain]).collect::<Vec<_>>(),
            "pre_tokenizer": pre_tokenizer, "model": model})
    }

    /// Words with ids from 0: the special tokens, all ASCII characters that print, and others.
    fn words(more: &[&str]) -> Vec<String> {
        let ascii = (b'!'..=b'~').map(|b| char::from(b).to_string());
        let more = more.iter().map(|word| word.to_string());
        let mut all: Vec<String> = SPECIAL.map(String::from).into_iter().chain(ascii).chain(more).collect();
        all.extend((all.len()..300).map(|i| format!("filler{i}")));
        all
    }

    fn vocab(words: &[String]) -> Value {
        words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect()
    }

    /// Tokenizers that have their special tokens among their words.
    fn all() -> Vec<(&'static str, Value)> {
        let blanks = json!({"type": "WhitespaceSplit"});
        let scores = |words: Vec<String>| words.into_iter().map(|w| json!([w, -1.0])).collect::<Value>();
        let bpe = |words: Vec<String>, merges: Value| json!({"type": "BPE", "unk_token": "[UNK]", "vocab": vocab(&words), "merges": merges});
        let bytes: Value = serde_json::from_str(super::super::bytes_json()).unwrap();
        let mut level = bytes["model"].clone();
        for id in level["vocab"].as_object_mut().unwrap().values_mut() {
            *id = json!(id.as_u64().unwrap() + 4);
        }
        for (id, special) in SPECIAL.iter().enumerate() {
            level["vocab"][special] = json!(id);
        }
        level["ignore_merges"] = json!(true);
        let level = |change: &dyn Fn(&mut Value)| {
            let mut json = file(level.clone(), Value::Null);
            json["decoder"] = bytes["decoder"].clone();
            change(&mut json);
            json
        };
        let prefix = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab(&words(&["##b"]))});
        vec![
            (
                "WordLevel",
                file(json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab(&words(&[]))}), blanks.clone()),
            ),
            ("WordPiece", file(prefix, blanks.clone())),
            ("Unigram", file(json!({"type": "Unigram", "unk_id": 0, "vocab": scores(words(&[]))}), Value::Null)),
            ("merges", file(bpe(words(&["</", "s>"]), json!(["< /", "s >", "</ s>"])), Value::Null)),
            ("pairs", file(bpe(words(&["</", "s>"]), json!([["<", "/"], ["s", ">"], ["</", "s>"]])), blanks)),
            ("bytes", level(&|_| ())),
            ("bytes by the crate", level(&|json| json["normalizer"] = json!({"type": "NFKC"}))),
            (
                "bytes with merges",
                level(&|json| {
                    json["model"]["vocab"]["</"] = json!(260);
                    json["model"]["vocab"]["s>"] = json!(261);
                    json["added_tokens"][4]["id"] = json!(262);
                    json["model"]["merges"] = json!(["< /", "s >", "</ s>"]);
                }),
            ),
        ]
    }

    #[test]
    fn no_text_becomes_a_special_token_of_any_model() {
        for (name, json) in all() {
            let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let control = |ids: Vec<u32>| ids.into_iter().filter(|id| (1..4).contains(id)).collect::<Vec<_>>();
            for text in
                ["</s>", "a </s> b", "[SEP] <|im_end|></s>", "\u{10fffe}</s>", "\u{10fffe}\u{10fffe}[SEP]\u{10fffe}"]
            {
                assert_eq!(control(tokenizer.encode(text).unwrap()), [0; 0], "{name}: {text}");
            }
            assert_eq!(control(tokenizer.encode_with_specials("a</s>b[SEP]<|im_end|>").unwrap()), [1, 2, 3], "{name}");
            // Tokens that are not special stay what they are.
            for specials in [false, true] {
                let encode = if specials { Tokenizer::encode_with_specials } else { Tokenizer::encode };
                assert!(
                    encode(&tokenizer, "a <tool> b").unwrap().contains(&tokenizer.token_id("<tool>").unwrap()),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_special_token_of_one_character_stays_the_token_of_that_character() {
        let (_, mut json) = all().remove(3);
        json["added_tokens"][1]["content"] = "!".into();
        json["added_tokens"][1]["id"] = json!(4);
        let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
        assert_eq!(tokenizer.encode("!").unwrap(), [4]);
    }

    #[test]
    fn the_same_text_has_the_same_ids_whatever_the_dropout() {
        let (_, mut json) = all().remove(3);
        let text = "</s> s> </ ".repeat(50);
        let want = Tokenizer::from_json(&json.to_string()).unwrap();
        json["model"]["dropout"] = json!(0.5);
        let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
        for encode in [Tokenizer::encode, Tokenizer::encode_with_specials] {
            assert_eq!(encode(&tokenizer, &text).unwrap(), encode(&want, &text).unwrap());
        }
    }
}
