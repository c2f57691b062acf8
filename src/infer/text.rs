//! Decodes tokens to text as they come. The text never has a broken character or a part of a stop string.

use crate::tokenizer::{Decoder, Tokenizer, overlap};
use std::sync::Arc;

/// The text that a token adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Text to show now.
    pub text: String,
    /// Whether a stop string is complete: the text ends here.
    pub stopped: bool,
}

/// A decoder of one stream of tokens. Its pieces, joined, are the text of [`Tokenizer::decode`] for all tokens, up to the
/// first stop string. Special tokens are not text.
///
/// What a later token can still change is held back. With most tokenizers that is a part of a character. A tokenizer with
/// byte tokens, such as `<0xE2>`, holds back a whole run of them. One whose decoder applies a regular expression to the
/// whole text gives all of it at the end.
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    decoder: Decoder,
    stops: Vec<String>,
    /// Special tokens that are stop strings.
    stop_ids: Vec<u32>,
    /// Text at the end that may be the start of a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// A decoder that ends the text at the first of `stops`, which may be the spelling of a special token. Empty strings do
    /// not count.
    pub fn new(tokenizer: impl Into<Arc<Tokenizer>>, stops: Vec<String>) -> Self {
        let tokenizer = tokenizer.into();
        let stops: Vec<String> = stops.into_iter().filter(|s| !s.is_empty()).collect();
        let ids = stops.iter().filter_map(|stop| tokenizer.token_id(stop));
        let stop_ids = ids.filter(|id| tokenizer.is_special(*id)).collect();
        let decoder = Decoder::new(&tokenizer, false);
        TextStream { tokenizer, decoder, stops, stop_ids, held: String::new(), stopped: false }
    }

    /// Makes the text go on from that of a prompt, which is not repeated: a blank between the two stays.
    pub fn after(mut self, prompt: &[u32]) -> Self {
        prompt.iter().for_each(|&id| drop(self.decoder.push(&self.tokenizer, id)));
        self.decoder.skip_held();
        self
    }

    /// Adds a token.
    pub fn push(&mut self, token: u32) -> Piece {
        if self.stop_ids.contains(&token) {
            let text = self.finish().text;
            self.stopped = true;
            return Piece { text, stopped: true };
        }
        let text = self.decoder.push(&self.tokenizer, token);
        self.add(&text, false)
    }

    /// Returns the rest of the text after the last token.
    pub fn finish(&mut self) -> Piece {
        let text = self.decoder.finish();
        self.add(&text, true)
    }

    /// Adds text and releases what is certain, or all.
    fn add(&mut self, text: &str, all: bool) -> Piece {
        if !self.stopped {
            self.held.push_str(text);
        }
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_string();
            self.held.clear();
            self.stopped = true;
            return Piece { text, stopped: true };
        }
        let starts = self.stops.iter().map(|stop| overlap(&self.held, stop));
        let keep = if all { 0 } else { starts.max().unwrap_or(0) };
        let text = self.held[..self.held.len() - keep].to_string();
        self.held.drain(..text.len());
        Piece { text, stopped: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stops: &[&str], text: &[u8]) -> (String, Vec<Piece>) {
        let mut s = TextStream::new(Tokenizer::bytes(), stops.iter().map(|s| s.to_string()).collect());
        let mut pieces = Vec::new();
        for byte in text {
            pieces.push(s.push(u32::from(*byte)));
            if pieces.last().is_some_and(|p| p.stopped) {
                break;
            }
        }
        if !pieces.last().is_some_and(|p| p.stopped) {
            pieces.push(s.finish());
        }
        (pieces.iter().map(|p| p.text.as_str()).collect(), pieces)
    }

    #[test]
    fn characters_come_whole() {
        let (text, pieces) = stream(&[], "aé€😀".as_bytes());
        assert_eq!(text, "aé€😀");
        assert!(pieces.iter().all(|p| p.text.chars().count() <= 1 && !p.text.contains('\u{fffd}')));
        assert_eq!(stream(&[], b"a\xff\xe2\x82b\xe2").0, "a\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn no_part_of_a_stop_string_leaks() {
        for (text, want) in [("abcSTOPdef", "abc"), ("abcSTO", "abcSTO"), ("STOP", ""), ("SSTOSTOPx", "SSTO")] {
            let (shown, pieces) = stream(&["STOP"], text.as_bytes());
            assert_eq!(shown, want, "{text}");
            assert_eq!(pieces.last().unwrap().stopped, text.contains("STOP"));
        }
        assert_eq!(
            stream(&["bc", "abcd"], b"xabcd").0,
            "xa",
            "of two complete stop strings, the first in the text counts"
        );
        assert_eq!(stream(&["é!"], "aé?é!".as_bytes()).0, "aé?");
    }

    #[test]
    fn nothing_follows_a_stop_string() {
        let mut s = TextStream::new(Tokenizer::bytes(), vec!["STOP".into()]);
        // As if one token had brought all of this: a stop string and the start of a character.
        s.held.push_str("abSTOPde");
        assert_eq!(s.push(0xe2), Piece { text: "ab".into(), stopped: true });
        assert_eq!((s.push(b'x'.into()).text, s.finish().text), (String::new(), String::new()));
    }

    #[test]
    fn of_two_stop_strings_in_one_token_the_earlier_counts() {
        let mut s = TextStream::new(Tokenizer::bytes(), vec!["cd".into(), "ab".into()]);
        s.held.push_str("xabcd");
        assert_eq!(s.push(b'y'.into()), Piece { text: "x".into(), stopped: true });
    }

    #[test]
    fn a_special_token_is_no_text_but_may_be_a_stop_string() {
        let tokenizer = Tokenizer::bytes();
        let ids = tokenizer.encode_with_specials("a<|user|>b\u{e9}<|system|>c").unwrap();
        for (stop, want) in [("<|bos|>", "abéc"), ("<|system|>", "abé"), ("<|user|>", "a"), ("b", "a")] {
            let mut s = TextStream::new(tokenizer.clone(), vec![stop.into()]);
            let mut text = String::new();
            for id in &ids {
                let piece = s.push(*id);
                text.push_str(&piece.text);
                if piece.stopped {
                    break;
                }
            }
            assert_eq!(text + &s.finish().text, want, "{stop}");
        }
    }
}
