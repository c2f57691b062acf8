//! From tokens to text as they come: no broken characters, no part of a stop string.

use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// What a token brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Text that may be shown.
    pub text: String,
    /// A stop string was completed; nothing after it is ever shown.
    pub stopped: bool,
}

/// Decodes a stream of tokens.
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    stops: Vec<String>,
    /// Bytes that are no whole characters yet.
    bytes: Vec<u8>,
    /// Text that may be the start of a stop string.
    held: String,
}

impl TextStream {
    /// `stops` are strings that end the text; empty ones are none.
    pub fn new(tokenizer: impl Into<Arc<Tokenizer>>, stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        TextStream { tokenizer: tokenizer.into(), stops, bytes: Vec::new(), held: String::new() }
    }

    pub fn push(&mut self, token: u32) -> Piece {
        self.bytes.extend(self.tokenizer.token_bytes(token).unwrap_or_default());
        let whole = whole_characters(&self.bytes);
        let text = String::from_utf8_lossy(&self.bytes[..whole]).into_owned();
        self.bytes.drain(..whole);
        self.held.push_str(&text);
        self.release(false)
    }

    /// The rest, when no more tokens come.
    pub fn finish(&mut self) -> Piece {
        self.held.push_str(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        self.release(true)
    }

    fn release(&mut self, all: bool) -> Piece {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_string();
            self.held.clear();
            // What the same token started after it.
            self.bytes.clear();
            return Piece { text, stopped: true };
        }
        let keep = if all { 0 } else { self.longest_start_of_a_stop() };
        let text = self.held[..self.held.len() - keep].to_string();
        self.held.drain(..text.len());
        Piece { text, stopped: false }
    }

    /// Bytes at the end of what is held that a stop string starts with.
    fn longest_start_of_a_stop(&self) -> usize {
        let starts = |stop: &String| {
            let ends = stop.char_indices().map(|(i, _)| i).skip(1);
            ends.filter(|end| self.held.ends_with(&stop[..*end])).max().unwrap_or(0)
        };
        self.stops.iter().map(starts).max().unwrap_or(0)
    }
}

/// Length of the longest start of `bytes` that ends with a character; what can never become one counts as one.
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
            "the one that starts first in the text wins when complete"
        );
        assert_eq!(stream(&["é!"], "aé?é!".as_bytes()).0, "aé?");
    }

    #[test]
    fn nothing_follows_a_stop_string() {
        let mut s = TextStream::new(Tokenizer::bytes(), vec!["STOP".into()]);
        // With the last byte they are as one token brings them: a stop string and the start of a character.
        s.bytes.extend(b"abSTOPde");
        assert_eq!(s.push(0xe2), Piece { text: "ab".into(), stopped: true });
        assert_eq!(s.finish().text, "");
    }
}
