//! What every face of the program must say about sampling parameters: the command line, the API and the browser.

use nanotern::infer::{Kind, PARAMETERS};
use serde_json::{Value, json};

/// A sampling parameter: values that are taken, values that are refused, and what is asked for instead. Values are JSON.
pub type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

pub const CASES: [Case; 9] = [
    ("temperature", &["0", "2"], &["2.1", "-0.5", "\"hot\""], "a number from 0 to 2"),
    ("top_p", &["0", "1"], &["1.5", "-0.1"], "a number from 0 to 1"),
    ("top_k", &["0", "4294967295"], &["-1", "1.5", "4294967296"], "an integer from 0 to 4294967295"),
    ("min_p", &["0", "1"], &["2", "-0.1"], "a number from 0 to 1"),
    ("repetition_penalty", &["0.01", "100"], &["0", "100.5"], "a number from 0.01 to 100"),
    (
        "logit_bias",
        &["{\"65\": 100}", "{\"65\": -100}"],
        &["{\"65\": 101}", "{\"x\": 1}", "7"],
        "an object of token ids, each with a number from -100 to 100",
    ),
    ("seed", &["0", "-1", "1099511627776"], &["0.5"], "an integer"),
    ("max_tokens", &["1", "2"], &["0", "-1", "1.5", "4294967296"], "an integer from 1 to 4294967295"),
    (
        "stop",
        &["\"a\"", "[\"a\",\"b\",\"c\",\"d\"]"],
        &["\"\"", "[\"a\", \"b\", \"c\", \"d\", \"e\"]"],
        "at most 4 strings, each with a length from 1 to 256 bytes",
    ),
];

/// A script that returns name, least and largest value, placeholder and help of each field of a settings form.
pub const FIELDS: &str = "return [...document.querySelectorAll('#settings input[type=number]')] \
    .map((e) => [e.name, e.min, e.max, e.placeholder, e.closest('label').title])";

/// The fields of a settings form, with the placeholder of an answer's length.
pub fn fields(max_tokens: &str) -> Value {
    let numbers = PARAMETERS.iter().filter(|row| [Kind::Number, Kind::Integer].contains(&row.kind));
    let fields = numbers.map(|row| {
        let [low, high] =
            row.limits.map_or([String::new(), String::new()], |(low, high)| [low, high].map(|v| v.to_string()));
        let placeholder = match row.name {
            "max_tokens" => max_tokens.to_string(),
            _ => row.default.map_or("random".to_string(), |v| v.to_string()),
        };
        json!([row.name, low, high, placeholder, row.help])
    });
    fields.collect()
}

/// The message about a value that is refused.
pub fn refusal(name: &str, value: &str, wanted: &str) -> String {
    format!("{name} = {value}: must be {wanted}")
}

/// The flags of a value on the command line.
pub fn flags(name: &str, value: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let values = match serde_json::from_str(value).unwrap() {
        Value::Array(list) => list,
        one => vec![one],
    };
    values.iter().flat_map(|value| [format!("--{}", name.replace('_', "-")), text(value)]).collect()
}
