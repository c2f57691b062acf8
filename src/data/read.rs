//! Reads the documents of one file.

use super::progress::Meter;
use super::report::Named;
use super::sources::{Form, Source};
use super::unpack;
use crate::error::{Error, Result};
use crate::files;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, Read};
use std::path::Path;

/// Bytes of a text file handed on at once.
const BLOCK: usize = 1 << 20;

/// Most bytes of a line of JSON: it is held in memory as a whole.
const LONGEST_LINE: u64 = 64 << 20;

/// What a reader hands on.
pub(super) enum Chunk<'a> {
    /// The next text of a document.
    Text(&'a str),
    /// The end of a document.
    End,
}

/// Hands the documents of `source` to `each`, in chunks. Returns the lines or rows that gave none.
///
/// # Errors
/// When the file cannot be read, is not what its name says, or gives no document although it is not empty; and those of
/// `each`.
pub(super) fn read(
    source: &Source,
    field: &str,
    meter: &Meter,
    each: &mut dyn FnMut(Chunk<'_>) -> Result<()>,
) -> Result<Named> {
    let path = &source.path;
    let mut skipped = Named::default();
    match source.form {
        Form::Text => text(path, &mut *unpack::open(source, meter)?, each)?,
        Form::Json => {
            let mut rows = Rows { path, unit: "line", field, used: 0, skipped: &mut skipped, each };
            json(&mut *unpack::open(source, meter)?, &mut rows)?;
            rows.finish()?;
        }
        #[cfg(feature = "parquet")]
        Form::Parquet => {
            let mut rows = Rows { path, unit: "row", field, used: 0, skipped: &mut skipped, each };
            super::parquet::read(source, meter, &mut rows)?;
            rows.finish()?;
        }
        #[cfg(not(feature = "parquet"))]
        Form::Parquet => {
            let what = "this program was built without the feature `parquet`: cargo build --features parquet";
            return Err(Error::invalid(path, what));
        }
    }
    Ok(skipped)
}

/// The documents in the lines or rows of a file.
pub(super) struct Rows<'a> {
    pub path: &'a Path,
    unit: &'static str,
    /// Name of the field or column.
    pub field: &'a str,
    used: u64,
    skipped: &'a mut Named,
    each: &'a mut dyn FnMut(Chunk<'_>) -> Result<()>,
}

impl Rows<'_> {
    /// Takes the text of a line or row (from 1), or why it has none.
    pub fn row(&mut self, number: u64, text: Result<&str, String>) -> Result<()> {
        let why = match text {
            Ok(text) if text.contains('\0') => "holds a NUL character".to_string(),
            Ok(text) => {
                self.used += 1;
                if !text.is_empty() {
                    (self.each)(Chunk::Text(text))?;
                }
                return (self.each)(Chunk::End);
            }
            Err(why) => why,
        };
        self.skipped.add(format!("{}: {} {number} {why}", self.path.display(), self.unit));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.used > 0 || self.skipped.count == 0 {
            return Ok(());
        }
        let first = &self.skipped.first[0];
        let first = first.strip_prefix(&format!("{}: ", self.path.display())).unwrap_or(first);
        let what = format!("none of its {} {}s has a text; the first: {first}", self.skipped.count, self.unit);
        Err(Error::invalid(self.path, what))
    }
}

/// Refuses the first bytes of a file that is UTF-16 or UTF-32; returns the length of a byte-order mark of UTF-8.
fn check_start(path: &Path, start: &[u8]) -> Result<usize> {
    let packed = |kind: &str, end: &str| {
        Err(Error::invalid(path, format!("is {kind}, but its name does not say so: it must end with {end}")))
    };
    let nul = |parity: usize| start.iter().skip(parity).step_by(2).take(64).filter(|b| **b == 0).count();
    let kind = match start {
        [0xef, 0xbb, 0xbf, ..] => return Ok(3),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        [0x1f, 0x8b, ..] => return packed("gzip", ".gz"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return packed("zstd", ".zst"),
        [b'P', b'A', b'R', b'1', ..] if start.contains(&0) => return packed("Parquet", ".parquet"),
        // ASCII in UTF-16: every other byte is 0, and the others are not.
        _ if nul(0).abs_diff(nul(1)) > 16.min(start.len() / 4) && nul(0).min(nul(1)) == 0 => "UTF-16",
        _ => return Ok(0),
    };
    let what = format!("is {kind}: a corpus is UTF-8 (iconv -f {kind} -t UTF-8 converts it)");
    Err(Error::invalid(path, what))
}

/// Names the first byte of `block`, which starts at byte `from` of the file, that no text has.
fn check_text<'a>(path: &Path, block: &'a [u8], from: u64, last: bool) -> Result<&'a str> {
    if block.contains(&0) {
        let at = block.iter().take_while(|b| **b != 0).count();
        let what = format!("is not text but binary: a NUL byte at offset {}", from + at as u64);
        return Err(Error::invalid(path, what));
    }
    match std::str::from_utf8(block) {
        Ok(text) => Ok(text),
        Err(e) if e.error_len().is_none() && !last => {
            Ok(std::str::from_utf8(&block[..e.valid_up_to()]).expect("as the error says"))
        }
        Err(e) => {
            let at = e.valid_up_to();
            Err(files::not_utf8(path, block[at], from + at as u64))
        }
    }
}

/// A text file is one document.
fn text(path: &Path, input: &mut dyn BufRead, each: &mut dyn FnMut(Chunk<'_>) -> Result<()>) -> Result<()> {
    let (mut block, mut offset) = (Vec::with_capacity(BLOCK), 0);
    loop {
        let want = (BLOCK - block.len()) as u64;
        let read = input.take(want).read_to_end(&mut block).map_err(|e| Error::io(path, e))?;
        let last = (read as u64) < want;
        let mark = if offset == 0 { check_start(path, &block)? } else { 0 };
        let text = check_text(path, &block[mark..], offset + mark as u64, last)?;
        if !text.is_empty() {
            each(Chunk::Text(text))?;
        }
        if last {
            return each(Chunk::End);
        }
        let used = mark + text.len();
        offset += used as u64;
        block.drain(..used);
    }
}

/// Lines of JSON, of which blank ones are nothing.
fn json(input: &mut dyn BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let path = rows.path;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut part = (&mut *input).take(LONGEST_LINE + 1);
        let read = part.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
        if read == 0 {
            break;
        }
        let mark = if number == 1 { check_start(path, &line)? } else { 0 };
        if number == 1 {
            check_lines(path, &line[mark..])?;
        }
        if read as u64 > LONGEST_LINE {
            skip_line(input).map_err(|e| Error::io(path, e))?;
            rows.row(number, Err(format!("is longer than {} MiB", LONGEST_LINE >> 20)))?;
        } else if !line[mark..].trim_ascii().is_empty() {
            let text = field(&line[mark..], rows.field);
            rows.row(number, text.as_deref().map_err(Clone::clone))?;
        }
    }
    Ok(())
}

/// Refuses a file whose first line is the start of a JSON value of many lines, or of an array of objects: read line by line
/// it would lose some of its documents.
fn check_lines(path: &Path, line: &[u8]) -> Result<()> {
    let (what, query) = match line.trim_ascii() {
        b"{" => ("JSON over many lines", "."),
        [b'[', rest @ ..] if matches!(rest.trim_ascii_start(), [] | [b'{', ..]) => ("one JSON array", ".[]"),
        _ => return Ok(()),
    };
    let what = format!("is {what}, not an object in each line (jq -c '{query}' converts it)");
    Err(Error::invalid(path, what))
}

/// Reads to the end of a line without keeping it.
fn skip_line(input: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let (used, done) = (end.map_or(buffer.len(), |at| at + 1), end.is_some() || buffer.is_empty());
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// The string in a field of a JSON object, or why there is none.
fn field(line: &[u8], name: &str) -> Result<String, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let not_json = |e: serde_json::Error| match line.trim_ascii().first() {
        Some(b'{') => format!("is not JSON: {e}"),
        _ => "is not a JSON object".to_string(),
    };
    let value = Field(name).deserialize(&mut json).map_err(not_json)?;
    json.end().map_err(not_json)?;
    match value {
        Some(Some(text)) => Ok(text),
        Some(None) => Err(format!("has a field `{name}` that is not a string")),
        None => Err(format!("has no field `{name}`")),
    }
}

/// Keeps one field of an object.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Option<String>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Option<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value_seed(Text)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Keeps a value that is a string. Any other takes no memory: lists of numbers would take many times their text.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_string()))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(text))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, values: S) -> Result<Self::Value, S::Error> {
        IgnoredAny.visit_seq(values).map(|_| None)
    }

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<Self::Value, M::Error> {
        IgnoredAny.visit_map(fields).map(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents of a file with these bytes, and what was skipped.
    fn documents(name: &str, bytes: &[u8]) -> Result<(Vec<String>, Named)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let found = super::super::sources::find(&dir.path().join(name)).unwrap();
        let (mut all, mut open) = (Vec::new(), String::new());
        let skipped = read(&found.sources[0], "text", &Meter::silent(), &mut |chunk| {
            match chunk {
                Chunk::Text(text) => open += text,
                Chunk::End => all.push(std::mem::take(&mut open)),
            }
            Ok(())
        })?;
        Ok((all, skipped))
    }

    fn text_of(bytes: &[u8]) -> String {
        documents("a.txt", bytes).unwrap().0.concat()
    }

    fn refusal(name: &str, bytes: &[u8]) -> String {
        documents(name, bytes).unwrap_err().to_string()
    }

    #[test]
    fn text_is_kept_as_it_is_but_for_its_mark() {
        assert_eq!(text_of(b"\xef\xbb\xbfone\r\ntwo"), "one\r\ntwo");
        assert_eq!(text_of("Ünï ﻿code".as_bytes()), "Ünï ﻿code");
        let long = "é".repeat(BLOCK) + "x" + &"漢字".repeat(BLOCK);
        assert_eq!(text_of(long.as_bytes()), long);
    }

    #[test]
    fn what_is_not_text_is_named() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
        };
        for big in [false, true] {
            for text in ["\u{feff}short", &"without a mark ".repeat(9)] {
                for name in ["a.txt", "a.jsonl"] {
                    let message = refusal(name, &utf16(text, big));
                    assert!(message.contains(name) && message.contains("UTF-16"), "{text} {big}: {message}");
                }
            }
        }
        assert!(refusal("a.txt", b"\xff\xfe\0\0a\0\0\0").contains("UTF-32"));
        let nul = refusal("a.txt", b"some text\0more");
        assert!(nul.contains("binary") && nul.contains("NUL byte at offset 9"), "{nul}");
        assert!(refusal("a.txt", &[0; 4000]).contains("NUL byte at offset 0"));
        let late = ["é".repeat(BLOCK).as_bytes(), b"\xff"].concat();
        let message = refusal("a.txt", &late);
        assert!(message.contains(&format!("byte 0xff at offset {}", 2 * BLOCK)), "{message}");
        assert!(refusal("a.txt", b"\xef\xbb\xbfabc\xc3").contains("byte 0xc3 at offset 6"));
    }

    #[test]
    fn lines_of_json_are_documents() {
        let lines = b"\xef\xbb\xbf{\"id\": 1, \"text\": \"one\\n\\u00e9\"}\r\n\n{\"text\":\"\"}\n{\"text\": \"two\", \"m\": {\"text\": 3}}";
        let (all, skipped) = documents("a.jsonl", lines).unwrap();
        assert_eq!(all, ["one\né", "", "two"]);
        assert_eq!(skipped.count, 0);
    }

    #[test]
    fn lines_without_a_text_are_counted_and_the_first_is_named() {
        let bad = [
            ("{\"text\": 3}", "a field `text` that is not a string"),
            ("{\"text\": null}", "not a string"),
            ("{\"text\": true}", "not a string"),
            ("{\"text\": -1}", "not a string"),
            ("{\"text\": 1e9}", "not a string"),
            ("{\"text\": [{\"a\": [0]}, \"b\"]}", "not a string"),
            ("{\"text\": {\"a\": []}}", "not a string"),
            ("{\"body\": \"x\"}", "no field `text`"),
            ("[1]", "not a JSON object"),
            ("plain", "not a JSON object"),
            ("{\"text\": \"x\"", "not JSON"),
            ("{\"text\": \"x\"} {}", "not JSON"),
            ("{\"text\": \"\\ud800\"}", "not JSON"),
            ("{\"text\": \"a\\u0000b\"}", "NUL character"),
        ];
        for (line, why) in bad {
            let (all, skipped) =
                documents("a.jsonl", format!("{{\"text\": \"good\"}}\n{line}\n{line}").as_bytes()).unwrap();
            assert_eq!((all.len(), skipped.count), (1, 2), "{line}");
            assert!(skipped.first[0].contains("line 2 ") && skipped.first[0].contains(why), "{skipped:?}");
            let message = refusal("a.jsonl", format!("{line}\n{line}").as_bytes());
            assert!(message.contains("none of its 2 lines") && message.contains(why), "{message}");
        }
    }

    #[test]
    fn json_that_is_not_in_lines_is_refused() {
        let arrays =
            ["[{\"text\": \"one\"},\n{\"text\": \"two\"}]", "[\n {\"text\": \"one\"}\n]", " [ {", "\u{feff}[\r\n"];
        for (json, said) in arrays.map(|json| (json, "one JSON array")).into_iter().chain([
            ("{\n \"text\": \"one\"\n}\n{\"text\": \"two\"}", "JSON over many lines"),
            ("\u{feff}{\r\n\"text\": \"one\"}", "JSON over many lines"),
        ]) {
            for name in ["a.json", "a.jsonl"] {
                let message = refusal(name, json.as_bytes());
                assert!(
                    message.contains(name) && message.contains(said) && message.contains("jq"),
                    "{json}: {message}"
                );
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let mut lines = b"{\"text\": \"".to_vec();
        lines.resize(LONGEST_LINE as usize + 70_000, b'x');
        lines.extend_from_slice(b"\"}\n{\"text\": \"next\"}\n");
        let (all, skipped) = documents("a.jsonl", &lines).unwrap();
        assert_eq!(all, ["next"]);
        assert!(skipped.first[0].contains("line 1 is longer than 64 MiB"), "{skipped:?}");
    }

    #[test]
    fn compressed_files_are_read() {
        use std::io::Write;
        let text = "{\"text\": \"a line\"}\n".repeat(9);
        let zstd = ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(documents("a.jsonl.zst", &zstd).unwrap().0.len(), 9);
        assert_eq!(documents("a.jsonl.gz", &[&gzip[..], &gzip].concat()).unwrap().0.len(), 18);
        assert_eq!(documents("a.txt.zst", &zstd).unwrap().0.concat(), text);
        assert!(refusal("a.txt.gz", &gzip[..gzip.len() / 2]).contains("a.txt.gz"));
        assert!(refusal("a.jsonl.zst", text.as_bytes()).contains("a.jsonl.zst"));
        for (name, bytes, end) in [("a.txt", &gzip, ".gz"), ("a.jsonl", &zstd, ".zst"), ("a.gz.part", &gzip, ".gz")] {
            let message = refusal(name, bytes);
            assert!(message.contains(name) && message.ends_with(&format!("must end with {end}")), "{message}");
        }
        assert_eq!(text_of(b"PAR1 is a word"), "PAR1 is a word");
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_needs_its_feature() {
        assert!(refusal("a.parquet", b"PAR1").contains("--features parquet"));
    }
}
