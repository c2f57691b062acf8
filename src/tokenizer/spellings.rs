//! Looks for the spellings of tokens in a text, in a time that hardly grows with their number.

use std::cmp::Reverse;

/// The spellings of some tokens.
#[derive(Clone, Debug)]
pub(crate) struct Spellings {
    /// In the order of their bytes.
    sorted: Vec<Spelling>,
    /// Whether one begins with this byte.
    starts: [bool; 256],
}

#[derive(Clone, Debug)]
struct Spelling {
    bytes: Box<[u8]>,
    /// Its place in the list that it came from.
    index: usize,
    /// The longest other one with which it begins.
    within: Option<usize>,
}

impl Spellings {
    /// Of equal spellings, the last counts.
    pub(crate) fn new<'a>(all: impl Iterator<Item = (usize, &'a str)>) -> Spellings {
        let spelling = |(index, text): (usize, &str)| Spelling { bytes: text.as_bytes().into(), index, within: None };
        let mut sorted: Vec<Spelling> = all.filter(|(_, text)| !text.is_empty()).map(spelling).collect();
        sorted.sort_unstable_by(|a, b| (&a.bytes, Reverse(a.index)).cmp(&(&b.bytes, Reverse(b.index))));
        sorted.dedup_by(|a, b| a.bytes == b.bytes);
        let mut starts = [false; 256];
        for i in 0..sorted.len() {
            starts[usize::from(sorted[i].bytes[0])] = true;
            let mut within = i.checked_sub(1);
            while let Some(at) = within.filter(|at| !sorted[i].bytes.starts_with(&sorted[*at].bytes)) {
                within = sorted[at].within;
            }
            sorted[i].within = within;
        }
        Spellings { sorted, starts }
    }

    /// The index of the longest one with which a text begins.
    pub(crate) fn longest_at(&self, text: &[u8]) -> Option<usize> {
        if !self.starts[usize::from(*text.first()?)] {
            return None;
        }
        // All between a text and one with which it begins do so, too.
        let before = self.sorted.partition_point(|s| *s.bytes <= *text).checked_sub(1)?;
        let mut found = &self.sorted[before];
        let equal = found.bytes.iter().zip(text).take_while(|(a, b)| a == b).count();
        while found.bytes.len() > equal {
            found = &self.sorted[found.within?];
        }
        Some(found.index)
    }

    /// Whether one is longer than a text, and begins with it.
    #[cfg(any(test, feature = "native"))]
    pub(crate) fn go_on_from(&self, text: &[u8]) -> bool {
        let after = self.sorted.partition_point(|s| *s.bytes <= *text);
        self.sorted.get(after).is_some_and(|s| s.bytes.starts_with(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_longest_is_found() {
        let mut rng = Rng::new(1);
        let mut text = |most: u64| -> String {
            let length = rng.below(most);
            (0..length).map(|_| *rng.pick(&['a', 'b', 'é'])).collect()
        };
        for _ in 0..300 {
            let all: Vec<String> = (0..12).map(|_| text(6)).collect();
            let spellings = Spellings::new(all.iter().map(String::as_str).enumerate());
            for _ in 0..30 {
                let text = text(8);
                let begun = all.iter().enumerate().filter(|(_, s)| !s.is_empty() && text.starts_with(s.as_str()));
                let want = begun.max_by_key(|(i, s)| (s.len(), *i)).map(|(i, _)| i);
                assert_eq!(spellings.longest_at(text.as_bytes()), want, "{text} {all:?}");
                let longer = all.iter().any(|s| s.len() > text.len() && s.starts_with(&text));
                assert_eq!(spellings.go_on_from(text.as_bytes()), longer, "{text} {all:?}");
            }
        }
    }

    #[test]
    fn many_that_begin_alike_are_found_in_little_time() {
        // A time that grows with their number would not end.
        let all: Vec<String> = (0..200_000).map(|i| format!("<|reserved_special_token_{i}|>")).collect();
        let spellings = Spellings::new(all.iter().map(String::as_str).enumerate());
        let text = "<|reserved_special_token_".repeat(40_000);
        assert!((0..text.len()).all(|at| spellings.longest_at(&text.as_bytes()[at..]).is_none()));
        for (i, spelling) in all.iter().enumerate() {
            assert_eq!(spellings.longest_at(spelling.as_bytes()), Some(i));
        }
    }
}
