//! Decodes tokens to text as they come. The text never has a broken character or a part of a stop string.

use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// The text that a token adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Text to show now.
    pub text: String,
    /// Whether a stop string is complete: the text ends here.
    pub stopped: bool,
}

/// A decoder of one stream of tokens.
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    stops: Vec<String>,
    /// Bytes at the end that are not a whole character yet.
    bytes: Vec<u8>,
    /// Text at the end that may be the start of a stop string.
    held: String,
}

impl TextStream {
    /// A decoder that ends the text at the first of `stops`. Empty strings do not count.
    pub fn new(tokenizer: impl Into<Arc<Tokenizer>>, stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        TextStream { tokenizer: tokenizer.into(), stops, bytes: Vec::new(), held: String::new() }
    }

    /// Adds a token.
    pub fn push(&mut self, token: u32) -> Piece {
        self.bytes.extend(self.tokenizer.token_bytes(token).unwrap_or_default());
        let whole = whole_characters(&self.bytes);
        let text = String::from_utf8_lossy(&self.bytes[..whole]).into_owned();
        self.bytes.drain(..whole);
        self.held.push_str(&text);
        self.release(false)
    }

    /// Returns the rest of the text after the last token.
    pub fn finish(&mut self) -> Piece {
        self.held.push_str(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        self.release(true)
    }

    fn release(&mut self, all: bool) -> Piece {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_string();
            self.held.clear();
            // The token may have started a character after the stop string.
            self.bytes.clear();
            return Piece { text, stopped: true };
        }
        let keep = if all { 0 } else { self.longest_start_of_a_stop() };
        let text = self.held[..self.held.len() - keep].to_string();
        self.held.drain(..text.len());
        Piece { text, stopped: false }
    }

    /// Length of the longest end of `held` that is the start of a stop string, in bytes.
    fn longest_start_of_a_stop(&self) -> usize {
        let starts = |stop: &String| {
            let ends = stop.char_indices().map(|(i, _)| i).skip(1);
            ends.filter(|end| self.held.ends_with(&stop[..*end])).max().unwrap_or(0)
        };
        self.stops.iter().map(starts).max().unwrap_or(0)
    }
}

/// Length of the longest prefix of `bytes` that ends with a whole character. Bytes that cannot become one count as one.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(_) => return bytes.len(),
            Err(e) => match e.error_len() {
                Some(bad) => at += e.valid_up_to() + bad,
                None => return at + e.valid_up_to(),
            },
        }
    }
    at
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
        s.bytes.extend(b"abSTOPde");
        assert_eq!(s.push(0xe2), Piece { text: "ab".into(), stopped: true });
        assert_eq!(s.finish().text, "");
    }
}
