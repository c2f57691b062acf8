//! Sampling parameters: one table. The engine, the flags of the command line, the fields of the API, the types of the browser
//! package and the settings form of both pages are made from it.

use crate::ops::SampleRow;
use crate::rng;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// The largest number of strings that end a text.
const MAX_STOPS: usize = 4;
/// The largest integer: a usize holds it in a browser too.
const LARGEST: f64 = u32::MAX as f64;

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A number within the limits.
    Number,
    /// An integer within the limits. Without limits, any integer.
    Integer,
    /// Token ids, each with a number within the limits.
    Bias,
    /// One string or a few, each with a length in bytes within the limits.
    Strings,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Parameter {
    /// The name of the field of [`Sampling`], which the API and the browser package use too.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The least and the largest value.
    pub limits: Option<(f64, f64)>,
    /// The value if a request gives none. The seed has none: it differs from request to request.
    pub default: Option<f64>,
    /// A sentence for users.
    pub help: &'static str,
}

impl Parameter {
    /// What the parameter takes, in words.
    fn takes(&self) -> String {
        let range = self.limits.map_or(String::new(), |(low, high)| format!(" from {low} to {high}"));
        match self.kind {
            Kind::Number => format!("a number{range}"),
            Kind::Integer => format!("an integer{range}"),
            Kind::Bias => format!("an object of token ids, each with a number{range}"),
            Kind::Strings => format!("at most {MAX_STOPS} strings, each with a length{range} bytes"),
        }
    }

    fn read<F: Field>(&self, value: &Value) -> Result<F> {
        let field = F::read(self, value).map_err(|wrong| self.refuse(&wrong))?;
        self.check(&field).map(|()| field)
    }

    fn check(&self, field: &impl Field) -> Result<()> {
        field.beyond(self).map_or(Ok(()), |wrong| Err(self.refuse(&wrong)))
    }

    fn refuse(&self, value: &str) -> Error {
        let short: String = value.chars().take(80).collect();
        Error::usage(format!("{} = {short}: must be {}", self.name, self.takes()))
    }
}

/// The type of a field of [`Sampling`].
trait Field: Sized {
    const KIND: Kind;

    fn of(default: Option<f64>) -> Self;

    /// Converts a value. An error is the part of the value that is wrong.
    fn read(row: &Parameter, value: &Value) -> Result<Self, String>;

    /// The part that is beyond the limits, if there is one.
    fn beyond(&self, row: &Parameter) -> Option<String>;
}

impl Field for f32 {
    const KIND: Kind = Kind::Number;

    fn of(default: Option<f64>) -> f32 {
        default.unwrap_or_default() as f32
    }

    fn read(_: &Parameter, value: &Value) -> Result<f32, String> {
        value.as_f64().map(|v| v as f32).ok_or_else(|| value.to_string())
    }

    fn beyond(&self, row: &Parameter) -> Option<String> {
        let within = row.limits.is_none_or(|(low, high)| (low as f32..=high as f32).contains(self));
        (!within).then(|| self.to_string())
    }
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Field for $type {
            const KIND: Kind = Kind::Integer;

            fn of(default: Option<f64>) -> $type {
                default.unwrap_or_default() as $type
            }

            fn read(row: &Parameter, value: &Value) -> Result<$type, String> {
                integer(value, row.limits.is_none()).map(|v| v as $type).ok_or_else(|| value.to_string())
            }

            fn beyond(&self, row: &Parameter) -> Option<String> {
                let within = row.limits.is_none_or(|(low, high)| (low..=high).contains(&(*self as f64)));
                (!within).then(|| self.to_string())
            }
        }
    )*};
}
integers!(u32 usize);

/// Reads an integer of 32 bits. With `any`, negative and larger integers are mixed into 32 bits.
fn integer(value: &Value, any: bool) -> Option<u32> {
    let whole = || value.as_f64().filter(|v| v.fract() == 0.0).map(f64::to_bits);
    let wide = value.as_u64().or_else(|| value.as_i64().map(|v| v as u64));
    let mixed = || wide.or_else(whole).filter(|_| any).map(|v| rng::mix(v) as u32);
    value.as_u64().and_then(|v| u32::try_from(v).ok()).or_else(mixed)
}

impl Field for Vec<(u32, f32)> {
    const KIND: Kind = Kind::Bias;

    fn of(_: Option<f64>) -> Self {
        Vec::new()
    }

    fn read(_: &Parameter, value: &Value) -> Result<Self, String> {
        let entry = |(key, bias): (&String, &Value)| {
            let pair = key.parse().ok().zip(bias.as_f64().map(|bias| bias as f32));
            pair.ok_or_else(|| format!("{{{key:?}: {bias}}}"))
        };
        value.as_object().ok_or_else(|| value.to_string())?.iter().map(entry).collect()
    }

    fn beyond(&self, row: &Parameter) -> Option<String> {
        let wrong = self.iter().find(|(_, bias)| bias.beyond(row).is_some());
        wrong.map(|(token, bias)| format!("{{\"{token}\": {bias}}}"))
    }
}

impl Field for Vec<String> {
    const KIND: Kind = Kind::Strings;

    fn of(_: Option<f64>) -> Self {
        Vec::new()
    }

    fn read(_: &Parameter, value: &Value) -> Result<Self, String> {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter().map(|v| v.as_str().map(String::from).ok_or_else(|| value.to_string())).collect()
    }

    fn beyond(&self, row: &Parameter) -> Option<String> {
        let wrong = self.iter().find(|stop| stop.len().beyond(row).is_some()).map(|stop| format!("{stop:?}"));
        wrong.or_else(|| (self.len() > MAX_STOPS).then(|| format!("{self:?}")))
    }
}

macro_rules! table {
    ($(#[doc = $help:literal] $name:ident: $type:ty, $script:tt, $limits:expr, $default:expr;)*) => {
        /// How tokens are drawn, and when to stop.
        ///
        /// The default seed is 0. Command line, API and browser package draw a seed for each request that gives none.
        /// The engine does not read `stop`, because it knows only tokens: give it to [`TextStream`](super::TextStream).
        #[derive(Clone, Debug, PartialEq)]
        pub struct Sampling {
            $(#[doc = $help] pub $name: $type,)*
        }

        /// The table, in the order of the fields of [`Sampling`].
        pub static PARAMETERS: [Parameter; [$(stringify!($name)),*].len()] = [$(Parameter {
            name: stringify!($name),
            kind: <$type as Field>::KIND,
            limits: $limits,
            default: $default,
            help: $help.trim_ascii(),
        },)*];

        impl Default for Sampling {
            fn default() -> Self {
                Sampling { $($name: Field::of($default),)* }
            }
        }

        impl Sampling {
            /// The table as a TypeScript interface.
            pub const TYPESCRIPT: &str = concat!(
                "/** How tokens are drawn, and when to stop. */\nexport interface Sampling {\n",
                $("  /**", $help, " */\n  ", stringify!($name), "?: ", stringify!($script), ";\n",)*
                "}\n"
            );

            /// Sets a parameter of the table by its name; false if the table has no such name.
            ///
            /// # Errors
            /// When the parameter does not take the value. The message has the name, the value and the limits.
            pub fn set(&mut self, name: &str, value: &Value) -> Result<bool> {
                let Some(row) = PARAMETERS.iter().find(|row| row.name == name) else { return Ok(false) };
                $(if name == stringify!($name) {
                    self.$name = row.read(value)?;
                })*
                Ok(true)
            }

            /// Refuses values beyond the limits of the table.
            ///
            /// # Errors
            /// Names the first parameter that is wrong, its value and its limits.
            pub fn check(&self) -> Result<()> {
                let [$($name),*] = &PARAMETERS;
                $($name.check(&self.$name)?;)*
                Ok(())
            }
        }
    };
}

// Help, name, type, type in TypeScript, limits, default.
table! {
    /// 0 takes the likeliest token; higher values draw unlikely ones more often.
    temperature: f32, number, Some((0.0, 2.0)), Some(0.8);
    /// Draws only from the likeliest tokens that together hold this share of the probability.
    top_p: f32, number, Some((0.0, 1.0)), Some(0.95);
    /// Draws only from this many of the likeliest tokens; 0 draws from all.
    top_k: u32, number, Some((0.0, LARGEST)), Some(0.0);
    /// Draws only tokens whose probability is at least this share of the likeliest token's.
    min_p: f32, number, Some((0.0, 1.0)), Some(0.0);
    /// Makes tokens that the text already has less likely; 1 changes nothing.
    repetition_penalty: f32, number, Some((0.01, 100.0)), Some(1.0);
    /// Numbers that are added to the logits of tokens, by token id.
    logit_bias: Vec<(u32, f32)>, { [token: number]: number }, Some((-100.0, 100.0)), None;
    /// The same seed draws the same text. Without one, each request draws another text.
    seed: u32, number, None, None;
    /// The largest number of tokens to draw.
    max_tokens: usize, number, Some((1.0, LARGEST)), Some(256.0);
    /// Strings that end the text; they do not appear in it.
    stop: Vec<String>, (string | string[]), Some((1.0, 256.0)), None;
}

impl Sampling {
    /// Sets every parameter of a JSON object.
    ///
    /// # Errors
    /// As [`Sampling::set`], and for a name that is not in the table.
    pub fn update(&mut self, fields: &Map<String, Value>) -> Result<()> {
        for (name, value) in fields {
            if !self.set(name, value)? {
                return Err(Error::usage(format!("there is no sampling parameter {name:?}")));
            }
        }
        Ok(())
    }

    /// Refuses a bias of a token that a model with `vocab` tokens does not have.
    ///
    /// # Errors
    /// Names the token and the number of tokens.
    pub fn check_tokens(&self, vocab: usize) -> Result<()> {
        match self.logit_bias.iter().find(|(token, _)| *token as usize >= vocab) {
            Some((token, _)) => Err(Error::usage(format!("logit_bias of token {token}: the model has {vocab} tokens"))),
            None => Ok(()),
        }
    }

    /// Whether a token may be drawn before it is certain that those before it are right: with a repetition penalty, tokens that
    /// were taken back would count as seen.
    pub(super) fn may_draft(&self) -> bool {
        self.repetition_penalty == 1.0
    }

    /// The words that the `sample` op reads for a sequence that has drawn `drawn` tokens.
    pub(super) fn row(&self, slot: usize, drawn: usize) -> SampleRow {
        SampleRow {
            slot: slot as u32,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            counter: drawn as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A value for every parameter, none of them the default.
    fn all() -> Value {
        json!({
            "temperature": 1.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.25,
            "logit_bias": {"7": -3}, "seed": 9, "max_tokens": 11, "stop": ["a", "b"],
        })
    }

    #[test]
    fn an_object_sets_every_parameter() {
        let want = Sampling {
            temperature: 1.5,
            top_p: 0.5,
            top_k: 5,
            min_p: 0.1,
            repetition_penalty: 1.25,
            logit_bias: vec![(7, -3.0)],
            seed: 9,
            max_tokens: 11,
            stop: vec!["a".into(), "b".into()],
        };
        let mut sampling = Sampling::default();
        sampling.update(all().as_object().unwrap()).unwrap();
        assert_eq!(sampling, want);
        for row in &PARAMETERS {
            assert!(all().get(row.name).is_some(), "{} is not in this test", row.name);
            assert!(Sampling::TYPESCRIPT.contains(&format!("/** {} */\n  {}?: ", row.help, row.name)), "{}", row.name);
        }
        for (name, value) in [("made_up", json!(1)), ("stop", Value::Null), ("stop", json!([1]))] {
            let error = sampling.update(&Map::from_iter([(name.to_string(), value)])).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn values_beyond_the_limits_are_refused_as_json_and_as_fields() {
        for row in &PARAMETERS {
            let Some((low, high)) = row.limits else { continue };
            let of = |value: f64| match row.kind {
                Kind::Number => json!(value),
                Kind::Integer => json!(value as i64),
                Kind::Bias => json!({ "3": value }),
                Kind::Strings => json!("x".repeat(value.max(0.0) as usize)),
            };
            let step = if row.kind == Kind::Number { 0.005 } else { 1.0 };
            let mut sampling = Sampling::default();
            for value in [low, high] {
                sampling.set(row.name, &of(value)).unwrap();
                sampling.check().unwrap();
            }
            for value in [low - step, high + step] {
                let error = sampling.set(row.name, &of(value)).unwrap_err().to_string();
                let limits = format!("from {low} to {high}");
                assert!(error.starts_with(&format!("{} = ", row.name)) && error.contains(&limits), "{error}");
            }
        }
        let refused = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.check().unwrap_err().to_string()
        };
        assert_eq!(refused(|s| s.temperature = 2.5), "temperature = 2.5: must be a number from 0 to 2");
        assert_eq!(refused(|s| s.top_p = f32::NAN), "top_p = NaN: must be a number from 0 to 1");
        assert!(refused(|s| s.logit_bias = vec![(1, 0.0), (5, 101.0)]).starts_with("logit_bias = {\"5\": 101}: "));
        assert!(refused(|s| s.max_tokens = 0).starts_with("max_tokens = 0: "));
        assert!(refused(|s| s.stop = vec!["x".into(); 5]).contains("at most 4 strings"));
    }

    #[test]
    fn seeds_are_any_integers() {
        let seed = |value: Value| {
            let mut sampling = Sampling::default();
            sampling.set("seed", &value).unwrap();
            sampling.seed
        };
        assert_eq!([seed(json!(0)), seed(json!(u32::MAX))], [0, u32::MAX]);
        let mixed = [json!(-1), json!(-2), json!(1u64 << 40), json!(u64::MAX - 9), json!(1e20)].map(seed);
        assert!((1..5).all(|i| mixed[i] != mixed[0]), "{mixed:?}");
    }
}
