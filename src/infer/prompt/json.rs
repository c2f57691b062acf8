//! JSON and numbers in templates, as Python writes them.

use super::budget::{self, LONGEST_OUTPUT};
use super::jinja::{failed, indentation};
use minijinja::Error;
use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs, from_args};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{Result, Write};

/// The filter `tojson` of `transformers`: Python's `json.dumps`, without the escapes for HTML of Jinja's own.
pub fn to_json(value: &Value, options: Rest<ValueOrKwargs>) -> std::result::Result<Value, Error> {
    let options = options.into_values();
    let (given, named): (&[Value], Kwargs) = from_args(&options)?;
    let option = |at: usize, name: &str| {
        let value = given.get(at).cloned().map_or_else(|| named.get::<Option<Value>>(name), |v| Ok(Some(v)))?;
        Ok::<_, Error>(value.filter(|v| !v.is_none()))
    };
    let ascii = option(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = option(1, "indent")?.map(|width| indentation(&width)).transpose()?;
    let (item, key) = match option(2, "separators")? {
        Some(pair) => {
            let pair: Vec<String> = pair.try_iter()?.map(|text| text.to_string()).collect();
            let [item, key] = <[String; 2]>::try_from(pair).map_err(|_| failed("tojson: separators must be a pair"))?;
            (item, key)
        }
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let sorted = option(3, "sort_keys")?.is_some_and(|v| v.is_true());
    named.assert_all_used()?;
    if value.is_undefined() {
        return Err(failed("tojson: the value is undefined"));
    }
    let mut out = Short(Vec::new());
    let mut to = Serializer::with_formatter(&mut out, Python { item, key, indent, ascii, depth: 0, empty: false });
    let written = match sorted {
        // Its objects are sorted.
        true => serde_json::to_value(value).and_then(|value| value.serialize(&mut to)),
        false => value.serialize(&mut to),
    };
    budget::fits(out.0.len())?;
    written.map_err(|e| failed(format!("tojson: {e}")))?;
    Ok(String::from_utf8_lossy(&out.0).into_owned().into())
}

/// Takes no more than a little more than the longest text that a filter may make.
struct Short(Vec<u8>);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.0.len() > LONGEST_OUTPUT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A float as Python's `repr` writes it. None for another value.
pub fn float_text(value: &Value) -> Option<String> {
    (value.is_number() && !value.is_integer()).then(|| f64::try_from(value.clone()).map(float).ok()).flatten()
}

fn float(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e').map(|(digits, exponent)| (digits, exponent.parse().unwrap_or(0))) {
        Some((digits, exponent @ ..-4)) => format!("{digits}e-{:02}", -exponent),
        Some((digits, exponent @ 16..)) => format!("{digits}e+{exponent:02}"),
        _ => format!("{value:?}").to_lowercase(),
    }
}

/// The format of `json.dumps`.
struct Python {
    /// Between items.
    item: String,
    /// Between a key and its value.
    key: String,
    indent: Option<String>,
    /// Whether other characters are escaped.
    ascii: bool,
    depth: usize,
    /// Nothing has followed the last bracket that opened.
    empty: bool,
}

impl Python {
    fn line(&self, out: &mut (impl Write + ?Sized)) -> Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(indent.as_bytes()))
    }

    fn open(&mut self, out: &mut (impl Write + ?Sized), bracket: &[u8]) -> Result<()> {
        (self.depth, self.empty) = (self.depth + 1, true);
        out.write_all(bracket)
    }

    fn close(&mut self, out: &mut (impl Write + ?Sized), bracket: &[u8]) -> Result<()> {
        self.depth -= 1;
        if !std::mem::replace(&mut self.empty, false) {
            self.line(out)?;
        }
        out.write_all(bracket)
    }

    fn next(&mut self, out: &mut (impl Write + ?Sized), first: bool) -> Result<()> {
        self.empty = false;
        out.write_all(if first { b"" } else { self.item.as_bytes() })?;
        self.line(out)
    }
}

impl Formatter for Python {
    fn write_f64<W: Write + ?Sized>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }

    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, text: &str) -> Result<()> {
        if !self.ascii {
            return out.write_all(text.as_bytes());
        }
        text.chars().try_for_each(|c| match c {
            ..='~' => out.write_all(&[c as u8]),
            _ => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}")),
        })
    }
}
