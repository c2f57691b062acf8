//! The OpenAI chat API: what a request may say, and the objects that answer it. A field is honoured or refused by name;
//! none is ignored, except where its value asks for nothing.

use super::error::ApiError;
use super::json::{self, Refused};
use crate::infer::{FinishReason, Message, Sampling};
use crate::rng;
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, Hasher};
use warp::http::StatusCode;

/// Bytes of a stop string at most.
const LONGEST_STOP: usize = 256;

/// A request that is well formed. Whether its prompt fits is for the tokenizer to say.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    pub messages: Vec<Message>,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    pub stream: bool,
    /// A stream ends with a chunk that counts tokens.
    pub include_usage: bool,
}

type Parsed<T> = Result<T, ApiError>;

impl ChatRequest {
    /// Reads a request for the model `served` of `vocab` tokens.
    pub fn parse(body: &[u8], served: &str, vocab: usize) -> Parsed<ChatRequest> {
        let value = json::parse(body).map_err(|refused| match refused {
            Refused::Malformed(e) => {
                ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")).code("invalid_json")
            }
            Refused::Repeated(key) => {
                let short: String = key.chars().take(80).collect();
                ApiError::field(&short, format!("{short:?} is given more than once")).code("duplicate_key")
            }
        })?;
        let Value::Object(fields) = value else {
            return Err(ApiError { param: None, ..ApiError::field("", "the body is not a JSON object") });
        };
        let mut request = ChatRequest {
            messages: Vec::new(),
            sampling: Sampling { max_tokens: usize::MAX, ..Sampling::default() },
            stops: Vec::new(),
            stream: false,
            include_usage: false,
        };
        request.sampling.seed = random_seed();
        for (name, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
            request.set(name, value, served, vocab)?;
        }
        request.check_together(&fields)?;
        Ok(request)
    }

    fn set(&mut self, name: &str, value: &Value, served: &str, vocab: usize) -> Parsed<()> {
        let s = &mut self.sampling;
        match name {
            "model" => check_model(value, served)?,
            "messages" => self.messages = messages(value)?,
            "temperature" => s.temperature = number(name, value, 0.0, 2.0)?,
            "top_p" => s.top_p = number(name, value, 0.0, 1.0)?,
            "min_p" => s.min_p = number(name, value, 0.0, 1.0)?,
            "repetition_penalty" => s.repetition_penalty = number(name, value, 0.01, 100.0)?,
            "top_k" => s.top_k = integer(name, value, 0, u64::from(u32::MAX))? as u32,
            "max_tokens" | "max_completion_tokens" => {
                s.max_tokens = integer(name, value, 1, i32::MAX as u64)? as usize;
            }
            "seed" => s.seed = seed(value)?,
            "logit_bias" => s.logit_bias = logit_bias(value, vocab)?,
            "stop" => self.stops = stops(value)?,
            "stream" => self.stream = boolean(name, value)?,
            "stream_options" => self.include_usage = stream_options(value)?,
            "n" => {
                if value.as_u64() != Some(1) {
                    return Err(ApiError::field(name, "n: only 1 is possible"));
                }
            }
            "user" if value.is_string() => {}
            "metadata" if value.is_object() => {}
            "user" => return Err(ApiError::field(name, "user is not a string")),
            "metadata" => return Err(ApiError::field(name, "metadata is not an object")),
            _ if asks_for_nothing(name, value) => {}
            _ => return Err(ApiError::unsupported(name)),
        }
        Ok(())
    }

    fn check_together(&self, fields: &Map<String, Value>) -> Parsed<()> {
        let given = |name: &str| fields.get(name).filter(|v| !v.is_null());
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "messages: there must be at least one"));
        }
        if let (Some(a), Some(b)) = (given("max_tokens"), given("max_completion_tokens"))
            && a != b
        {
            return Err(ApiError::field("max_tokens", "max_tokens and max_completion_tokens differ"));
        }
        if given("stream_options").is_some() && !self.stream {
            return Err(ApiError::field("stream_options", "stream_options is for stream = true"));
        }
        Ok(())
    }
}

/// Fields of the OpenAI API that this server does not have, with the value that does not need them.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match name {
        "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "logprobs" | "store" => value == false,
        "response_format" => *value == json!({"type": "text"}),
        _ => false,
    }
}

fn check_model(value: &Value, served: &str) -> Parsed<()> {
    match value.as_str() {
        Some(name) if name == served => Ok(()),
        Some(name) => Err(model_not_found(name, served)),
        None => Err(ApiError::field("model", "model is not a string")),
    }
}

/// 404 because the server has another model.
pub fn model_not_found(name: &str, served: &str) -> ApiError {
    let short: String = name.chars().take(80).collect();
    let error = ApiError::field("model", format!("there is no model {short:?}; this server has {served:?}"));
    ApiError { status: StatusCode::NOT_FOUND, ..error }.code("model_not_found")
}

fn messages(value: &Value) -> Parsed<Vec<Message>> {
    let list = value.as_array().ok_or_else(|| ApiError::field("messages", "messages is not a list"))?;
    list.iter().enumerate().map(|(i, value)| message(&format!("messages[{i}]"), value)).collect()
}

fn message(at: &str, value: &Value) -> Parsed<Message> {
    let object = value.as_object().ok_or_else(|| ApiError::field(at, format!("{at} is not an object")))?;
    let extra = object.iter().find(|(k, v)| !v.is_null() && !["role", "content"].contains(&k.as_str()));
    if let Some((name, _)) = extra {
        return Err(ApiError::unsupported(&format!("{at}.{name}")));
    }
    let role = format!("{at}.role");
    let named = object.get("role").and_then(Value::as_str);
    let named = named.ok_or_else(|| ApiError::field(&role, format!("{role} is missing or not a string")))?;
    if !["system", "user", "assistant"].contains(&named) {
        let short: String = named.chars().take(80).collect();
        return Err(ApiError::field(&role, format!("{role} is {short:?}: system, user and assistant are possible")));
    }
    let content = content(&format!("{at}.content"), object.get("content").unwrap_or(&Value::Null))?;
    Ok(Message { role: named.to_string(), content })
}

/// A string, or a list of parts that are text.
fn content(at: &str, value: &Value) -> Parsed<String> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(ApiError::field(at, format!("{at} is missing or not text"))),
    };
    let text = |part: &Value| {
        let known = part.as_object().is_some_and(|o| o.keys().all(|k| k == "type" || k == "text"));
        part["text"].as_str().filter(|_| known && part["type"] == "text").map(str::to_string)
    };
    let texts: Option<Vec<String>> = parts.iter().map(text).collect();
    texts
        .map(|t| t.concat())
        .ok_or_else(|| ApiError::field(at, format!("{at}: only parts of type \"text\" are possible")))
}

fn number(name: &str, value: &Value, low: f32, high: f32) -> Parsed<f32> {
    match value.as_f64().map(|v| v as f32) {
        Some(v) if (low..=high).contains(&v) => Ok(v),
        Some(_) => Err(ApiError::field(name, format!("{name} = {value}: between {low} and {high} is possible"))),
        None => Err(ApiError::field(name, format!("{name} is not a number"))),
    }
}

fn integer(name: &str, value: &Value, low: u64, high: u64) -> Parsed<u64> {
    match (value.as_u64(), value.is_number()) {
        (Some(v), _) if (low..=high).contains(&v) => Ok(v),
        (_, true) => {
            Err(ApiError::field(name, format!("{name} = {value}: an integer between {low} and {high} is possible")))
        }
        _ => Err(ApiError::field(name, format!("{name} is not an integer"))),
    }
}

fn boolean(name: &str, value: &Value) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| ApiError::field(name, format!("{name} is not true or false")))
}

/// Any integer: one that fits u32 stays what it is, others are mixed into it.
fn seed(value: &Value) -> Parsed<u32> {
    let wide = match (value.as_i64(), value.as_u64(), value.as_f64()) {
        (Some(v), _, _) => v as u64,
        (_, Some(v), _) => v,
        (_, _, Some(v)) if v.fract() == 0.0 => v.to_bits(),
        _ => return Err(ApiError::field("seed", "seed is not an integer")),
    };
    Ok(u32::try_from(wide).unwrap_or_else(|_| rng::mix(wide) as u32))
}

/// Different for every request.
fn random_seed() -> u32 {
    std::hash::RandomState::new().build_hasher().finish() as u32
}

fn logit_bias(value: &Value, vocab: usize) -> Parsed<Vec<(u32, f32)>> {
    let name = "logit_bias";
    let map = value.as_object().ok_or_else(|| ApiError::field(name, "logit_bias is not an object"))?;
    let entry = |(key, bias): (&String, &Value)| {
        let id = key.parse::<u32>().ok().filter(|id| (*id as usize) < vocab);
        let id = id.ok_or_else(|| {
            let short: String = key.chars().take(40).collect();
            ApiError::field(name, format!("logit_bias: {short:?} is not a token id below {vocab}"))
        })?;
        Ok((id, number(name, bias, -100.0, 100.0)?))
    };
    map.iter().map(entry).collect()
}

fn stops(value: &Value) -> Parsed<Vec<String>> {
    let list = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(list) if list.len() <= 4 => list,
        _ => return Err(ApiError::field("stop", "stop: a string or at most 4 strings are possible")),
    };
    let good = |v: &Value| v.as_str().filter(|s| (1..=LONGEST_STOP).contains(&s.len())).map(str::to_string);
    let wrong = || ApiError::field("stop", format!("stop: a string has between 1 and {LONGEST_STOP} bytes"));
    list.iter().map(|v| good(v).ok_or_else(wrong)).collect()
}

fn stream_options(value: &Value) -> Parsed<bool> {
    let object =
        value.as_object().ok_or_else(|| ApiError::field("stream_options", "stream_options is not an object"))?;
    match object.iter().find(|(k, v)| *k != "include_usage" && !v.is_null()) {
        Some((name, _)) => Err(ApiError::unsupported(&format!("stream_options.{name}"))),
        None => object.get("include_usage").map_or(Ok(false), |v| boolean("stream_options.include_usage", v)),
    }
}

/// What all objects of one answer share.
#[derive(Clone, Debug)]
pub struct Reply {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

impl Reply {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices})
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }

    /// The answer in one piece.
    pub fn whole(&self, text: &str, finish: &str) -> Value {
        let message = json!({"role": "assistant", "content": text});
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish});
        let mut object = self.object("chat.completion", json!([choice]));
        object["usage"] = self.usage();
        object
    }

    /// A chunk of a stream: a change, and in the last one why it ended.
    pub fn chunk(&self, delta: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        self.object("chat.completion.chunk", json!([choice]))
    }

    /// The chunk that counts tokens.
    pub fn usage_chunk(&self) -> Value {
        let mut object = self.object("chat.completion.chunk", json!([]));
        object["usage"] = self.usage();
        object
    }
}

/// How the API calls the end of a sequence; the API has no word for a full context or a shutdown.
pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Context | FinishReason::Cancelled => "length",
    }
}
