//! Chat templates as Hugging Face's `transformers` renders them: with the filters, functions and methods that Jinja2 and
//! Python have there.

use super::{budget, json};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Most bytes that one byte of a format of `strftime_now` makes.
const LONGEST_TIME_FIELD: usize = 256;

pub type Made = Result<Value, Error>;

/// What a template said by `raise_exception`.
#[derive(Debug)]
pub struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

pub fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// The environment of one template, which is called `chat`.
pub fn environment(template: &str) -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    budget::check_length(template)?;
    let source = source(template)?;
    budget::check_depth(&source, syntax.clone())?;
    let mut environment = Environment::new();
    budget::limit(&mut environment);
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| {
        let text = json::float_text(value).unwrap_or_else(|| value.to_string());
        out.write_str(&text).map_err(Error::from)
    });
    environment.add_filter("batch", |state: &State<'_, '_>, items: Value, count: usize, fill: Option<Value>| {
        // The engine does not charge what fills up the last batch.
        fill.as_ref().map_or(Ok(()), |_| state.consume_fuel(count as u64))?;
        filters::batch(state, items, count, fill)
    });
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("format", |state: &mut State<'_, '_>, text: &Value, args: Rest<ValueOrKwargs>| {
        let values: Vec<Value> = args.iter().map(|arg| (**arg).clone()).collect();
        budget::check_format(text.as_str().unwrap_or_default(), '%', &values)?;
        filters::format(state, text, args)
    });
    environment.add_filter("indent", indent);
    environment.add_filter("lines", |state: &State<'_, '_>, text: &Value| {
        pay_for_pieces(state, text, Some("\n"))?;
        filters::lines(text)
    });
    environment.add_filter("split", |state: &State<'_, '_>, text: &Value, at: Option<Arc<str>>, most: Option<i64>| {
        pay_for_pieces(state, text, at.as_deref())?;
        filters::split(text, at, most)
    });
    environment.add_filter("tojson", json::to_json);
    // Jinja2 marks its result, so that it is not escaped again.
    ["e", "escape"].into_iter().for_each(|name| environment.remove_filter(name));
    environment.add_filter("trim", |text: &Value, chars: Option<&str>| {
        strip(&text.to_string(), chars, true, true).to_string()
    });
    environment
        .add_test("iterable", |value: &Value| value.is_undefined() || !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    environment.add_function("raise_exception", |message: &Value| -> Made {
        Err(failed("the template refuses").with_source(Raised(message.to_string())))
    });
    environment.add_function("strftime_now", |format: &str| {
        let now = jiff::Zoned::now();
        budget::fits(format.len().saturating_mul(LONGEST_TIME_FIELD))?;
        jiff::fmt::strtime::format(format, &now).map_err(|e| failed(format!("strftime_now({format:?}): {e}")))
    });
    budget::sound(|| environment.add_template_owned("chat", source))?;
    Ok(environment)
}

/// A template in the dialect of minijinja, which has no `generation` blocks (they only mark their content) and fewer escapes in
/// strings.
fn source(template: &str) -> Result<String, Error> {
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let (mut out, mut rest) = (String::with_capacity(template.len()), &*template);
    // One search for all three: one that is not there would be looked for to the end at every tag.
    let opens =
        |text: &str| text.match_indices('{').map(|(at, _)| at).find(|at| text[at + 1..].starts_with(['%', '{', '#']));
    while let Some(at) = opens(rest) {
        let (before, tag) = rest.split_at(at);
        let name = tag[2..].trim_start_matches(['-', '+']).trim_start();
        let name = &name[..name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len())];
        let (tag, after) = tag.split_at(match (&tag[..2], name) {
            ("{#", _) => tag.find("#}").map_or(tag.len(), |end| end + 2),
            ("{%", "raw") => tag.find("endraw").unwrap_or(tag.len()),
            ("{%", _) => end_of_code(tag, "%}"),
            _ => end_of_code(tag, "}}"),
        });
        out.push_str(before);
        match (&tag[..2], name) {
            ("{%", "generation") => out.push_str(&tag.replacen(name, "if true", 1)),
            ("{%", "endgeneration") => out.push_str(&tag.replacen(name, "endif", 1)),
            ("{#", _) | ("{%", "raw") => out.push_str(tag),
            ("{%", "autoescape") => return Err(failed("the block autoescape is not supported")),
            _ => out.push_str(&escapes(tag)?),
        }
        rest = after;
    }
    Ok(out + rest)
}

/// Length of a tag with its `close`, which does not count within a string.
fn end_of_code(tag: &str, close: &str) -> usize {
    let mut quote = None;
    let mut chars = tag.char_indices().skip(2);
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if tag[at..].starts_with(close) => return at + close.len(),
            _ => {}
        }
    }
    tag.len()
}

/// A tag with the escapes of minijinja, which has fewer than Python. A backslash before a character that Python does not escape
/// stays.
fn escapes(tag: &str) -> Result<String, Error> {
    let (mut out, mut rest) = (String::with_capacity(tag.len()), tag);
    while let Some(at) = rest.find('\\') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        let next = after.chars().next().unwrap_or_default();
        let number = |digits: Option<&str>, radix| char::from_u32(u32::from_str_radix(digits?, radix).ok()?);
        let (length, character) = match next {
            '0'..='7' => {
                let length = after.bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
                (length, number(after.get(..length), 8))
            }
            'a' => (1, Some('\x07')),
            'v' => (1, Some('\x0b')),
            'U' => (9, number(after.get(1..9), 16)),
            'N' => (1, None),
            _ => {
                match next {
                    '\n' => {}
                    _ if "\\\"'nrtbfux".contains(next) => out.extend(['\\', next]),
                    _ => out.extend(['\\', '\\', next]),
                }
                rest = &after[next.len_utf8().min(after.len())..];
                continue;
            }
        };
        let character =
            character.ok_or_else(|| failed(format!("\\{next} in a string: this escape is not supported")))?;
        match character as u32 {
            // It may be a quote.
            code @ ..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            _ => out.push(character),
        }
        rest = &after[length..];
    }
    Ok(out + rest)
}

/// Jinja's `default`, whose second argument may have its name.
fn default(value: &Value, or: Option<Value>, boolean: Option<bool>, named: Kwargs) -> Made {
    let or = or.map_or_else(|| named.get("default_value"), |or| Ok(Some(or)))?;
    let falsy_too = boolean.map_or_else(|| named.get("boolean"), |b| Ok(Some(b)))?;
    named.assert_all_used()?;
    let missing = value.is_undefined() || falsy_too == Some(true) && !value.is_true();
    Ok(if missing { or.unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// Jinja's `indent`, which keeps the newline at the end.
fn indent(text: &str, width: Option<Value>, first: Option<bool>, blank: Option<bool>, named: Kwargs) -> Made {
    let width = width.map_or_else(|| named.get::<Option<Value>>("width"), |w| Ok(Some(w)))?;
    let first = first.map_or_else(|| named.get::<Option<bool>>("first"), |f| Ok(Some(f)))?;
    let blank = blank.map_or_else(|| named.get::<Option<bool>>("blank"), |b| Ok(Some(b)))?;
    named.assert_all_used()?;
    let by = indentation(&width.unwrap_or_else(|| 4.into()))?;
    budget::fits(text.len().saturating_add(by.len().saturating_mul(text.split('\n').count())))?;
    let mut out = if first == Some(true) { by.clone() } else { String::new() };
    for (i, line) in text.split('\n').enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        out.push_str(if i > 0 && (blank == Some(true) || !line.is_empty()) { &by } else { "" });
        out.push_str(line);
    }
    Ok(out.into())
}

/// A number of blanks, or a text.
pub fn indentation(width: &Value) -> Result<String, Error> {
    /// More would only serve to fill the memory.
    const MOST: usize = 1024;
    match width.as_str() {
        Some(text) => Ok(text.to_string()),
        None => Ok(" ".repeat(usize::try_from(width.clone())?.min(MOST))),
    }
}

/// The methods of Python's strings that `pycompat` lacks, or in which it differs.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Made {
    let others =
        |state: &mut State<'_, '_>, args: &[Value]| pycompat::unknown_method_callback(state, value, name, args);
    let Some(text) = value.as_str() else { return others(state, args) };
    let chars = || from_args::<(Option<&str>,)>(args).map(|(chars,)| chars);
    let part = || from_args::<(&str,)>(args).map(|(part,)| part);
    match name {
        "format" => budget::check_format(text, '{', args)?,
        "split" | "rsplit" => {
            let named = args.first().and_then(|named| named.get_attr("sep").ok());
            let at = args.first().into_iter().chain(&named).find_map(Value::as_str);
            pay_for_pieces(state, value, at)?;
        }
        "splitlines" => pay_for_pieces(state, value, Some("\n"))?,
        _ => {}
    }
    Ok(match name {
        "strip" => strip(text, chars()?, true, true).into(),
        "lstrip" => strip(text, chars()?, true, false).into(),
        "rstrip" => strip(text, chars()?, false, true).into(),
        "removeprefix" => text.strip_prefix(part()?).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(part()?).unwrap_or(text).into(),
        "partition" => match text.split_once(part()?) {
            Some((before, after)) => [before, part()?, after],
            None => [text, "", ""],
        }
        .into_iter()
        .collect(),
        "rpartition" => match text.rsplit_once(part()?) {
            Some((before, after)) => [before, part()?, after],
            None => ["", "", text],
        }
        .into_iter()
        .collect(),
        "split" | "rsplit" => {
            let (separator, most, named): (Option<Arc<str>>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.map_or_else(|| named.get("sep"), |s| Ok(Some(s)))?;
            let most = most.map_or_else(|| named.get("maxsplit"), |n| Ok(Some(n)))?;
            named.assert_all_used()?;
            match name {
                "split" => others(state, &[separator.into(), most.into()])?,
                _ => split_from_right(text, separator.as_deref(), most).into_iter().collect(),
            }
        }
        "title" => title(text).into(),
        _ => others(state, args)?,
    })
}

/// Python's `rsplit`: at most `most` cuts at a separator or at white space, the last ones. Fewer than none are all.
fn split_from_right<'a>(text: &'a str, separator: Option<&str>, most: Option<i64>) -> Vec<&'a str> {
    let most = most.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        Some(separator) => parts.extend(text.rsplitn(most.saturating_add(1), separator)),
        None => {
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let word =
                    if parts.len() < most { rest.trim_end_matches(|c: char| !c.is_whitespace()).len() } else { 0 };
                parts.push(&rest[word..]);
                rest = rest[..word].trim_end();
            }
        }
    }
    parts.reverse();
    parts
}

/// Pays for the pieces of a text before it is split.
fn pay_for_pieces(state: &State<'_, '_>, text: &Value, at: Option<&str>) -> Result<(), Error> {
    let text = text.as_str().unwrap_or_default();
    let pieces = at.map_or_else(|| text.split_whitespace().count(), |at| text.matches(at).count());
    state.consume_fuel(pieces as u64)
}

/// Without the white space at its ends, or without the given characters. Python's white space has four separators more than
/// Unicode's.
fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let strips = |c: char| chars.as_ref().map_or_else(|| space(c), |chars| chars.contains(&c));
    let text = if left { text.trim_start_matches(strips) } else { text };
    if right { text.trim_end_matches(strips) } else { text }
}

/// Every letter that follows no letter is a capital; all others are small.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}
