//! Splits and encodes text into a corpus.

use super::Corpus;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Rejects a fraction outside (0, 1).
pub(super) fn check_fraction(fraction: f64) -> Result<()> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    Err(Error::usage(format!("val_fraction is {fraction}: it must be above 0 and below 1")))
}

/// Splits `text` into training and validation text: the first floor((1 - fraction) * n) of its n characters, and the rest.
///
/// # Errors
/// When `fraction` is not in (0, 1).
pub fn split_text(text: &str, fraction: f64) -> Result<(&str, &str)> {
    check_fraction(fraction)?;
    let cut = (text.chars().count() as f64 * (1.0 - fraction)) as usize;
    let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
    Ok(text.split_at(at))
}

impl Corpus {
    /// Encodes a training text and a validation text, in which the spelling of a special token is that token.
    ///
    /// # Errors
    /// When either has no tokens, or cannot be encoded.
    pub fn from_text(name: &str, train: &str, val: &str, tokenizer: Tokenizer) -> Result<Corpus> {
        let (train, val_ids) = (tokenizer.encode_with_specials(train)?, tokenizer.encode_with_specials(val)?);
        if train.is_empty() || val_ids.is_empty() {
            return Err(Error::usage(format!("the data set {name} has no tokens to train on or to validate with")));
        }
        Ok(Corpus {
            name: name.to_string(),
            train: train.into(),
            val_bytes: Some(text_bytes(val, &tokenizer, &val_ids)),
            val: val_ids.into(),
            vocab_size: tokenizer.vocab_size(),
            tokenizer: Some(tokenizer),
            #[cfg(feature = "native")]
            report: None,
        })
    }
}

/// Bytes of a text whose ids are these, without the spellings of special tokens.
pub(super) fn text_bytes(text: &str, tokenizer: &Tokenizer, ids: &[u32]) -> u64 {
    let spelled = ids.iter().filter(|id| tokenizer.is_spelled(**id));
    let bytes: usize = spelled.filter_map(|id| tokenizer.token_bytes(*id)).map(|bytes| bytes.len()).sum();
    // A normalizer may make the spelling of a token of a shorter text.
    text.len().saturating_sub(bytes) as u64
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A tokenizer whose unknown token is special, like `[SEP]`.
    fn tokenizer(model: Value, normalizer: Value) -> Tokenizer {
        let token = |id, content| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": content == "[SEP]", "special": true})
        };
        let json = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null, "model": model,
            "added_tokens": [token(0, "[UNK]"), token(1, "[SEP]")]});
        Tokenizer::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn a_text_without_tokens_has_all_its_bytes() {
        let vocab = json!({"[UNK]": 0, "[SEP]": 1, "a": 2});
        let pieces = json!([["[UNK]", 0.0], ["[SEP]", -1.0], ["a", -1.0]]);
        for model in [
            json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab}),
            json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab}),
            json!({"type": "BPE", "unk_token": "[UNK]", "vocab": vocab, "merges": []}),
            json!({"type": "Unigram", "unk_id": 0, "vocab": pieces}),
        ] {
            let tokenizer = tokenizer(model.clone(), Value::Null);
            for (text, bytes) in [("☃", 3), ("a", 1), ("a[SEP]☃ ☃", 8), ("[SEP]", 0)] {
                let ids = tokenizer.encode_with_specials(text).unwrap();
                assert_eq!(text_bytes(text, &tokenizer, &ids), bytes, "{text} {ids:?} {model}");
            }
            let corpus = Corpus::from_text("x", "a", "☃", tokenizer).unwrap();
            assert_eq!(corpus.val_bytes, Some(3), "{model}");
        }
    }

    #[test]
    fn a_token_that_a_normalizer_makes_of_a_short_text_has_no_more_bytes() {
        let model = json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[SEP]": 1}});
        let normalizer = json!({"type": "Replace", "pattern": {"String": "$"}, "content": "[SEP]"});
        let tokenizer = tokenizer(model, normalizer);
        let ids = tokenizer.encode_with_specials("$").unwrap();
        assert_eq!((&ids[..], text_bytes("$", &tokenizer, &ids)), (&[1][..], 0));
    }
}
