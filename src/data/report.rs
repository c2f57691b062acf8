//! What was read of a corpus, and what was not.

use serde::Serialize;
use std::fmt;

/// How many names a report shows.
const SHOWN: usize = 5;

/// A number of things, and the first of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first few, each with what is to be said of it.
    pub first: Vec<String>,
}

impl Named {
    pub(super) fn add(&mut self, text: String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(text);
        }
    }

    pub(super) fn append(&mut self, other: Named) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(SHOWN);
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, label: &str, unit: &str) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        write!(f, "\n{label} {}", count(self.count, unit))?;
        for text in &self.first {
            write!(f, "\n           {text}")?;
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 { write!(f, "\n           and {more} more") } else { Ok(()) }
    }
}

/// A number of things, in words.
fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// The training or the validation part of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Documents, and parts of documents that were cut.
    pub documents: u64,
    /// Bytes of text alone, without separators and special tokens.
    pub bytes: u64,
    /// Tokens, with an end-of-document token for each document.
    pub tokens: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Share { documents, bytes, tokens } = *self;
        write!(f, "{}, {bytes} bytes of text", count(documents, "document"))?;
        if tokens > 0 {
            write!(f, ", {tokens} tokens ({:.2} bytes each)", bytes as f64 / tokens as f64)
        } else {
            Ok(())
        }
    }
}

/// What a corpus was made of. It prints as lines for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that were read.
    pub files: u64,
    /// The part to train on.
    pub train: Share,
    /// The part to validate with.
    pub val: Share,
    /// How the parts were chosen, in words.
    pub split: String,
    /// Files and folders that were not read, and why.
    pub left_out: Named,
    /// Lines and rows that gave no document, and why.
    pub skipped: Named,
    /// What else there is to say, such as bounds that were applied.
    pub notes: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "corpus     {}", count(self.files, "file"))?;
        for (label, share) in [("training  ", self.train), ("validation", self.val)] {
            if share != Share::default() {
                write!(f, "\n{label} {share}")?;
            }
        }
        write!(f, "\nsplit      {}", self.split)?;
        self.left_out.write(f, "left out  ", "name")?;
        self.skipped.write(f, "skipped   ", "record")?;
        self.notes.iter().try_for_each(|note| write!(f, "\nnote       {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_a_few_and_counts_all() {
        let mut report = Report { files: 2, split: "given".into(), ..Report::default() };
        report.train = Share { documents: 3, bytes: 30, tokens: 12 };
        (0..7).for_each(|i| report.left_out.add(format!("{i}.png: binary")));
        (0..2).for_each(|i| report.skipped.add(format!("a.parquet: row {i} is null")));
        let text = report.to_string();
        for part in [
            "2 files",
            "3 documents, 30 bytes of text, 12 tokens (2.50",
            "7 names",
            "4.png: binary",
            "and 2 more",
            "skipped    2 records",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("validation") && !text.contains("5.png") && !text.contains("note"), "{text}");
    }
}
