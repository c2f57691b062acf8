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
            val_bytes: Some(val.len() as u64 - special_bytes(&tokenizer, &val_ids)),
            val: val_ids.into(),
            vocab_size: tokenizer.vocab_size(),
            tokenizer: Some(tokenizer),
            #[cfg(feature = "native")]
            report: None,
        })
    }
}

/// Bytes of the spellings of the special tokens among `ids`. The rest of their text is text alone.
pub(super) fn special_bytes(tokenizer: &Tokenizer, ids: &[u32]) -> u64 {
    let special = ids.iter().filter(|id| tokenizer.is_special(**id));
    special.filter_map(|id| tokenizer.token_bytes(*id)).map(|bytes| bytes.len() as u64).sum()
}
