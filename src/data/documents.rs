//! The documents of a corpus, read from the disk as often as they are needed, and their split into training and validation.
//!
//! The first pass counts documents, takes the checksum of each and finds the files that cannot be read. Only documents that
//! are longer than a block are remembered, so memory does not grow with the corpus.

use super::progress::Meter;
use super::read::{self, Chunk};
use super::report::{Named, Report, Share};
use super::sources::{self, Source};
use super::text::check_fraction;
use crate::error::{Error, Result};
use crate::rng::mix;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Bytes up to which a document is held in memory as a whole.
const BLOCK: usize = 1 << 20;

/// With fewer documents than this, the tail of each is held back instead of a selection of them.
const FEW: u64 = 100;

/// Farthest bytes from where the fraction says that a document is cut.
const NEAR: usize = 1 << 16;

/// How documents are read.
#[derive(Clone, Debug)]
pub(super) struct Format {
    /// Name of the field or column with the text.
    pub field: String,
    /// The spelling that ends a document within a text, if it does.
    pub end: Option<String>,
    /// Spellings of special tokens, within which no text is cut.
    pub spellings: Vec<String>,
}

/// The part of a corpus that a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Train,
    Val,
}

/// Which documents are for validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Split {
    /// All are of one side.
    All(Side),
    /// Those whose checksum, as a number in [0, 1), is below this.
    Hash(f64),
    /// This fraction of each, at its end.
    Tail(f64),
}

/// Length and checksum of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    len: u64,
    crc: u32,
}

impl Digest {
    fn add(&mut self, text: &str) {
        self.len += text.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, text.as_bytes());
    }

    /// Uniform in [0, 1), the same for the same text.
    fn share(self) -> f64 {
        mix(self.len << 32 ^ u64::from(self.crc)) as f64 / 2f64.powi(64)
    }
}

/// What a pass read; the same in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    documents: u64,
    bytes: u64,
    /// Documents that their checksum chooses for validation.
    chosen: u64,
    sum: u64,
}

impl Totals {
    fn add(&mut self, document: Digest, fraction: f64) {
        self.documents += 1;
        self.bytes += document.len;
        self.chosen += u64::from(document.share() < fraction);
        self.sum = mix(self.sum ^ u64::from(document.crc));
    }
}

/// The documents of a file or of all files of a folder.
#[derive(Debug)]
pub(super) struct Documents {
    path: PathBuf,
    sources: Vec<Source>,
    format: Format,
    /// The part to hold back for validation.
    fraction: f64,
    /// Documents longer than [`BLOCK`], in order.
    long: Vec<Digest>,
    totals: Totals,
    left_out: Named,
    skipped: Named,
}

/// What is to be said of validation files that are among those of training, too.
pub fn also_in(val: &[&Path], train: &[&Path]) -> Option<String> {
    let [ours, theirs]: [HashSet<PathBuf>; 2] =
        [val, train].map(|files| files.iter().filter_map(|file| file.canonicalize().ok()).collect());
    let (both, all) = (ours.intersection(&theirs).count(), val.len());
    let what = "validation files are training files, too: their loss is of text that is trained on";
    (both > 0).then(|| format!("{both} of {all} {what}"))
}

impl Documents {
    /// Finds and counts the documents at `path`, of which `fraction` may be held back for validation.
    ///
    /// # Errors
    /// When a file cannot be read or is not text (within a folder, it is left out instead), there is no document, or the
    /// fraction is not in (0, 1).
    pub fn open(path: &Path, format: Format, fraction: f64) -> Result<Documents> {
        check_fraction(fraction)?;
        let found = sources::find(path)?;
        let meter = Meter::new("reading", found.sources.iter().map(|s| s.size).sum());
        let (mut left_out, mut skipped) = (found.left_out, Named::default());
        let (mut long, mut totals, mut sources) = (Vec::new(), Totals::default(), Vec::new());
        for source in found.sources {
            let (mut file, mut of_file) = (totals, Vec::new());
            let read = scan(&source, &format, &meter, &mut |digest| {
                file.add(digest, fraction);
                if digest.len > BLOCK as u64 {
                    of_file.push(digest);
                }
            });
            match read {
                Ok(rows) => {
                    totals = file;
                    long.append(&mut of_file);
                    skipped.append(rows);
                    sources.push(source);
                }
                Err(e) if found.folder => left_out.add(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        if totals.documents == 0 {
            let why = left_out.first.iter().map(|text| format!("; left out: {text}")).collect::<String>();
            let what =
                if found.folder { format!("the folder contains no text{why}") } else { "the file is empty".into() };
            return Err(Error::invalid(path, what));
        }
        Ok(Documents { path: path.to_path_buf(), sources, format, fraction, long, totals, left_out, skipped })
    }

    /// How to hold back documents for validation, and that in words: by their checksums, or if that leaves too few documents
    /// on a side, the tail of each.
    pub fn split(&self) -> (Split, String) {
        let Totals { documents, chosen, .. } = self.totals;
        let fraction = self.fraction;
        let why = match chosen {
            _ if documents < FEW => format!("there are fewer than {FEW} documents ({documents})"),
            0 => format!("no document would be chosen for {fraction}"),
            _ if chosen == documents => format!("all {documents} documents would be chosen for {fraction}"),
            _ => {
                let said = format!("{chosen} of {documents} documents are for validation, chosen by their contents");
                return (Split::Hash(fraction), said);
            }
        };
        (Split::Tail(fraction), format!("the last {fraction} of each document is for validation: {why}"))
    }

    /// Number and bytes of all documents.
    pub fn share(&self) -> Share {
        Share { documents: self.totals.documents, bytes: self.totals.bytes, tokens: 0 }
    }

    /// What is to be said of files that are among those of `train`, too.
    pub fn also_in(&self, train: &Documents) -> Option<String> {
        let [ours, theirs]: [Vec<&Path>; 2] =
            [self, train].map(|of| of.sources.iter().map(|source| &*source.path).collect());
        also_in(&ours, &theirs)
    }

    /// Adds files and what was left out to a report.
    pub fn report(&self, report: &mut Report) {
        report.files += self.sources.len() as u64;
        report.left_out.append(self.left_out.clone());
        report.skipped.append(self.skipped.clone());
    }

    /// Hands every document to `each` in chunks with their side. No chunk is empty, and no document.
    ///
    /// # Errors
    /// Those of `each`, or when a file changed since the first pass.
    pub fn each(
        &self,
        what: &'static str,
        split: Split,
        each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>,
    ) -> Result<()> {
        let meter = Meter::new(what, self.sources.iter().map(|s| s.size).sum());
        let mut totals = Totals::default();
        let mut long = self.long.iter();
        let changed = || Error::invalid(&self.path, "changed while it was read");
        for source in &self.sources {
            let mut open = Open::default();
            let mut ends = Ends::new(self.format.end.as_deref());
            read::read(source, &self.format.field, &meter, &mut |chunk| {
                ends.take(chunk, &mut |chunk| match chunk {
                    Chunk::Text(text) => {
                        open.digest.add(text);
                        open.push(
                            text,
                            |held| {
                                let known = long.next().copied().ok_or_else(changed)?;
                                Ok(Cutter::new(split, known, held, &self.format.spellings))
                            },
                            each,
                        )
                    }
                    Chunk::End => {
                        let Open { digest, held, cutter } = std::mem::take(&mut open);
                        totals.add(digest, self.fraction);
                        cutter.unwrap_or_else(|| Cutter::new(split, digest, held, &self.format.spellings)).finish(each)
                    }
                })
            })?;
        }
        if totals == self.totals { Ok(()) } else { Err(changed()) }
    }
}

/// Reads a file and hands over the digest of each of its documents.
fn scan(source: &Source, format: &Format, meter: &Meter, each: &mut dyn FnMut(Digest)) -> Result<Named> {
    let mut digest = Digest::default();
    let mut ends = Ends::new(format.end.as_deref());
    read::read(source, &format.field, meter, &mut |chunk| {
        ends.take(chunk, &mut |chunk| {
            match chunk {
                Chunk::Text(text) => digest.add(text),
                Chunk::End => each(std::mem::take(&mut digest)),
            }
            Ok(())
        })
    })
}

/// Ends documents also where a spelling says so, and drops empty ones.
struct Ends<'a> {
    spelling: Option<&'a str>,
    /// The end of the text so far that may be the start of the spelling.
    held: String,
    /// Whether the document has a text.
    open: bool,
}

impl<'a> Ends<'a> {
    fn new(spelling: Option<&'a str>) -> Self {
        Ends { spelling, held: String::new(), open: false }
    }

    fn take(&mut self, chunk: Chunk<'_>, each: &mut dyn FnMut(Chunk<'_>) -> Result<()>) -> Result<()> {
        match (chunk, self.spelling) {
            (Chunk::Text(text), None) => self.text(text, each),
            (Chunk::Text(text), Some(spelling)) => {
                self.held.push_str(text);
                let held = std::mem::take(&mut self.held);
                let mut rest = held.as_str();
                while let Some((text, after)) = rest.split_once(spelling) {
                    self.text(text, each)?;
                    self.end(each)?;
                    rest = after;
                }
                let kept =
                    (1..spelling.len()).rev().find(|&n| spelling.is_char_boundary(n) && rest.ends_with(&spelling[..n]));
                let (text, kept) = rest.split_at(rest.len() - kept.unwrap_or(0));
                self.held.push_str(kept);
                self.text(text, each)
            }
            (Chunk::End, _) => {
                let held = std::mem::take(&mut self.held);
                self.text(&held, each)?;
                self.end(each)
            }
        }
    }

    fn text(&mut self, text: &str, each: &mut dyn FnMut(Chunk<'_>) -> Result<()>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.open = true;
        each(Chunk::Text(text))
    }

    fn end(&mut self, each: &mut dyn FnMut(Chunk<'_>) -> Result<()>) -> Result<()> {
        if std::mem::take(&mut self.open) { each(Chunk::End) } else { Ok(()) }
    }
}

/// A document that is being read: held until it is known which it is.
#[derive(Default)]
struct Open<'a> {
    digest: Digest,
    held: String,
    cutter: Option<Cutter<'a>>,
}

impl<'a> Open<'a> {
    fn push(
        &mut self,
        text: &str,
        known: impl FnOnce(String) -> Result<Cutter<'a>>,
        each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>,
    ) -> Result<()> {
        match &mut self.cutter {
            Some(cutter) => cutter.push(text, each),
            None => {
                self.held.push_str(text);
                if self.held.len() > BLOCK {
                    let mut cutter = known(std::mem::take(&mut self.held))?;
                    cutter.advance(each)?;
                    self.cutter = Some(cutter);
                }
                Ok(())
            }
        }
    }
}

/// Hands on the text of one document: all of it to one side, or the head to training and the tail to validation.
struct Cutter<'a> {
    side: Side,
    /// Text not handed on yet, and its place in the document.
    held: String,
    at: u64,
    /// Where to cut, and how far from there at most.
    cut: Option<(u64, usize)>,
    spellings: &'a [String],
}

impl<'a> Cutter<'a> {
    fn new(split: Split, document: Digest, held: String, spellings: &'a [String]) -> Self {
        let (side, cut) = match split {
            Split::All(side) => (side, None),
            Split::Hash(fraction) => (if document.share() < fraction { Side::Val } else { Side::Train }, None),
            Split::Tail(fraction) => {
                let target = (document.len as f64 * (1.0 - fraction)) as u64;
                let near = (target.min(document.len - target) / 2).min(NEAR as u64) as usize;
                (Side::Train, Some((target, near)))
            }
        };
        Cutter { side, held, at: 0, cut, spellings }
    }

    fn push(&mut self, text: &str, each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>) -> Result<()> {
        if self.cut.is_none() && self.held.is_empty() {
            return each(self.side, Chunk::Text(text));
        }
        self.held.push_str(text);
        self.advance(each)
    }

    /// Hands on what is known to be of a side. More of the document may follow.
    fn advance(&mut self, each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>) -> Result<()> {
        let margin = longest(self.spellings) as u64;
        if let Some((target, near)) = self.cut {
            let end = self.at + self.held.len() as u64;
            if end + near as u64 + margin > target && end <= target + near as u64 + margin {
                return Ok(());
            }
            if end > target {
                self.cut_here(each)?;
            }
        }
        self.flush(each)
    }

    /// Cuts the held text, which has the place to cut and what is near it, or is the end of the document.
    fn cut_here(&mut self, each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>) -> Result<()> {
        let Some((target, near)) = self.cut.take() else { return Ok(()) };
        let target = (target - self.at) as usize;
        if let Some(at) = cut_near(&self.held, target, near).and_then(|at| clear_of(&self.held, at, self.spellings)) {
            let tail = self.held.split_off(at);
            self.flush(each)?;
            each(self.side, Chunk::End)?;
            (self.held, self.side) = (tail, Side::Val);
        }
        Ok(())
    }

    fn flush(&mut self, each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        each(self.side, Chunk::Text(&self.held))?;
        self.at += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    fn finish(mut self, each: &mut dyn FnMut(Side, Chunk<'_>) -> Result<()>) -> Result<()> {
        self.cut_here(each)?;
        self.flush(each)?;
        each(self.side, Chunk::End)
    }
}

fn longest(spellings: &[String]) -> usize {
    spellings.iter().map(String::len).max().unwrap_or(0)
}

/// A position inside `text` at most `near` bytes from `target`: after the nearest line end, else before the nearest white
/// space after a word, else at a character. `None` if the text has no inside.
pub(super) fn cut_near(text: &str, target: usize, near: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let range = target.saturating_sub(near).max(1)..(target + near + 1).min(bytes.len());
    let nearest = |at: &dyn Fn(usize) -> bool| range.clone().filter(|&i| at(i)).min_by_key(|i| i.abs_diff(target));
    let space = |i: usize| bytes[i].is_ascii_whitespace() && !bytes[i - 1].is_ascii_whitespace();
    nearest(&|i| bytes[i - 1] == b'\n')
        .or_else(|| nearest(&space))
        .or_else(|| (1..=target.min(bytes.len().saturating_sub(1))).rev().find(|&i| text.is_char_boundary(i)))
}

/// The position `at` of `text`, or where the spelling starts that would be cut there. `None` if that is the start of `text`.
pub(super) fn clear_of(text: &str, mut at: usize, spellings: &[String]) -> Option<usize> {
    let cut = |at: usize, s: &String| {
        let from = (at + 1).saturating_sub(s.len());
        (from..at).find(|&i| text.as_bytes()[i..].starts_with(s.as_bytes()) && i + s.len() > at)
    };
    while let Some(start) = spellings.iter().find_map(|s| cut(at, s)) {
        at = start;
    }
    (at > 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::SPECIALS;
    use std::fs;

    fn format(end: Option<&str>) -> Format {
        let spellings = SPECIALS.map(String::from).to_vec();
        Format { field: "text".into(), end: end.map(String::from), spellings }
    }

    /// Training and validation documents.
    fn sides(documents: &Documents, split: Split) -> (Vec<String>, Vec<String>) {
        let (mut train, mut val, mut open) = (vec![], vec![], String::new());
        documents
            .each("reading", split, &mut |side, chunk| {
                match chunk {
                    Chunk::Text(text) => open += text,
                    Chunk::End => {
                        let list = if side == Side::Train { &mut train } else { &mut val };
                        list.push(std::mem::take(&mut open));
                    }
                }
                Ok(())
            })
            .unwrap();
        (train, val)
    }

    fn lines(texts: &[String]) -> String {
        texts.iter().map(|t| serde_json::json!({ "text": t }).to_string() + "\n").collect()
    }

    #[test]
    fn the_choice_depends_on_contents_alone() {
        let texts: Vec<String> = (0..2000).map(|i| format!("document {i}")).collect();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("many")).unwrap();
        for (i, text) in texts.iter().enumerate() {
            fs::write(dir.path().join(format!("many/{:04}", i * 7919 % 2000)), text).unwrap();
        }
        let doubled: Vec<String> = texts.iter().chain(texts.iter().rev()).cloned().collect();
        fs::write(dir.path().join("doubled.jsonl"), lines(&doubled)).unwrap();
        let read = |name: &str| {
            let documents = Documents::open(&dir.path().join(name), format(None), 0.1).unwrap();
            let (split, said) = documents.split();
            assert_eq!(split, Split::Hash(0.1), "{said}");
            let (mut train, mut val) = sides(&documents, split);
            train.sort();
            val.sort();
            (train, val)
        };
        let (many, mut doubled) = (read("many"), read("doubled.jsonl"));
        assert!((150..250).contains(&many.1.len()), "{}", many.1.len());
        assert_eq!(doubled.1.len(), 2 * many.1.len());
        doubled.0.dedup();
        doubled.1.dedup();
        assert_eq!(many, doubled);
    }

    #[test]
    fn of_few_documents_the_tail_of_each_is_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let texts = ["one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n", "short", "x"].map(String::from);
        let path = dir.path().join("few.jsonl");
        fs::write(&path, lines(&texts)).unwrap();
        let documents = Documents::open(&path, format(None), 0.2).unwrap();
        let (split, said) = documents.split();
        assert!(said.contains("fewer than 100 documents (3)"), "{said}");
        let (train, val) = sides(&documents, split);
        assert_eq!(train, ["one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n", "shor", "x"]);
        assert_eq!(val, ["nine\nten\n", "t"]);
    }

    #[test]
    fn equal_documents_are_cut_since_no_choice_divides_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("equal.jsonl");
        fs::write(&path, lines(&vec!["the same words".to_string(); 150])).unwrap();
        let documents = Documents::open(&path, format(None), 0.1).unwrap();
        let (split, said) = documents.split();
        assert_eq!(split, Split::Tail(0.1), "{said}");
        assert_eq!(sides(&documents, split).1.len(), 150);
    }

    #[test]
    fn long_documents_are_cut_like_short_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long.txt");
        let text: String = (0..300_000).map(|i| format!("line {i}\n")).collect();
        fs::write(&path, &text).unwrap();
        let documents = Documents::open(&path, format(None), 0.1).unwrap();
        assert_eq!(documents.long.len(), 1);
        for fraction in [0.001, 0.1, 0.37, 0.5, 0.99] {
            let (train, val) = sides(&documents, Split::Tail(fraction));
            assert_eq!((train.len(), val.len()), (1, 1), "{fraction}");
            assert!(train[0].ends_with('\n') && train.concat() + &val.concat() == text, "{fraction}");
            let want = text.len() as f64 * fraction;
            assert!((val[0].len() as f64 - want).abs() < 16.0, "{} {want}", val[0].len());
        }
        assert_eq!(sides(&documents, Split::All(Side::Val)).1, [text]);
    }

    #[test]
    fn a_spelling_ends_documents_and_is_never_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        let long = "x".repeat(BLOCK - 10); // the spelling lies across two blocks
        fs::write(&path, format!("<|eos|>{long}<|eos|>two<|eos|><|eos|>three<|eo")).unwrap();
        let documents = Documents::open(&path, format(Some("<|eos|>")), 0.1).unwrap();
        assert_eq!(sides(&documents, Split::All(Side::Train)).0, [long, "two".into(), "three<|eo".into()]);
        for at in 0..12 {
            let text = "a".repeat(40 + at) + "<|assistant|>" + &"b".repeat(20);
            fs::write(&path, &text).unwrap();
            let documents = Documents::open(&path, format(None), 0.1).unwrap();
            let (train, val) = sides(&documents, Split::Tail(0.35));
            assert_eq!(train.concat() + &val.concat(), text);
            assert!(text.contains("<|assistant|>") && [&train, &val].iter().any(|t| t[0].contains("<|assistant|>")));
        }
    }

    #[test]
    fn files_that_are_no_text_are_left_out_of_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("a.txt", &b"good text"[..]),
            ("b.png", b"\x89PNG\0"),
            ("c.txt", b"caf\xe9"),
            ("d.json", b"{\n\"pretty\": 1\n}"),
            ("e.zst", b"no"),
            ("f.jsonl", b"{\"text\": \"line\"}\n7\n"),
            ("g.txt", b"\xff\xfea\0"),
            ("h.txt", b"\xef\xbb\xbf"),
        ] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let documents = Documents::open(dir.path(), format(None), 0.1).unwrap();
        assert_eq!(sides(&documents, Split::All(Side::Train)).0, ["good text", "line"]);
        let mut report = Report::default();
        documents.report(&mut report);
        let text = report.to_string();
        assert_eq!((report.left_out.count, report.skipped.count), (5, 1), "{text}");
        for part in ["b.png", "NUL", "c.txt", "byte 0xe9 at offset 3", "d.json", "e.zst", "UTF-16", "line 2 is not"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for (name, why) in
            [("b.png", "NUL"), ("c.txt", "0xe9 at offset 3"), ("d.json", "over many lines"), ("h.txt", "empty")]
        {
            let error = Documents::open(&dir.path().join(name), format(None), 0.1).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        fs::remove_file(dir.path().join("a.txt")).unwrap();
        fs::remove_file(dir.path().join("f.jsonl")).unwrap();
        let error = Documents::open(dir.path(), format(None), 0.1).unwrap_err().to_string();
        assert!(error.contains("no text") && error.contains("b.png"), "{error}");
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        fs::write(&path, "before").unwrap();
        let documents = Documents::open(&path, format(None), 0.1).unwrap();
        fs::write(&path, "behind").unwrap();
        let error = documents.each("reading", Split::All(Side::Train), &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("changed"), "{error}");
    }

    #[test]
    fn places_to_cut() {
        assert_eq!(cut_near("ab\ncd\nef gh", 7, 4), Some(6));
        assert_eq!(cut_near("ab cd ef gh", 7, 3), Some(8));
        assert_eq!(cut_near("abcdéfgh", 5, 3), Some(4));
        assert_eq!(cut_near("a", 0, 9), None);
        assert_eq!(cut_near("", 0, 0), None);
        let spellings = ["<|a|>".to_string(), "|><".to_string()];
        assert_eq!(clear_of("xx<|a|>", 4, &spellings), Some(2));
        assert_eq!(clear_of("<|a|>y", 4, &spellings), None);
        assert_eq!(clear_of("<|a|>y", 5, &spellings), Some(5));
    }
}
