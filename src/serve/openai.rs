//! The OpenAI chat API: the fields of a request, and the objects of an answer. Every field is honoured or refused by name.
//! A field that this server does not support is accepted only with a value that asks for nothing.

use super::error::ApiError;
use super::json::{self, Refused};
use crate::infer::{Conversation, FinishReason, PARAMETERS, Parameter, Sampling};
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, Hasher};
use warp::http::StatusCode;

/// A well-formed request. Its prompt may still be too long.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// At least one message.
    pub conversation: Conversation,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// Whether the answer comes as server-sent events.
    pub stream: bool,
    /// Whether a stream ends with a chunk that counts tokens.
    pub include_usage: bool,
}

/// The roles of OpenAI's API. A template may know fewer.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

type Parsed<T> = Result<T, ApiError>;

impl ChatRequest {
    /// Reads the body of a request for the model `served`, which has `vocab` tokens.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object or a field that is wrong, 404 for another model.
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
            conversation: Conversation::default(),
            // OpenAI's API limits an answer by the context alone, unless the request has a limit of its own.
            sampling: Sampling { seed: random_seed(), max_tokens: u32::MAX as usize, ..Sampling::default() },
            stream: false,
            include_usage: false,
        };
        for (name, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
            request.set(name, value, served)?;
        }
        request.check_together(&fields, vocab)?;
        Ok(request)
    }

    fn set(&mut self, name: &str, value: &Value, served: &str) -> Parsed<()> {
        if self.sampling.set(name, value).map_err(|e| ApiError::field(name, e.to_string()))? {
            return Ok(());
        }
        match name {
            "max_completion_tokens" => {
                let set = self.sampling.set("max_tokens", value);
                set.map_err(|e| ApiError::field(name, format!("{name}: {e}")))?;
            }
            "model" => check_model(value, served)?,
            "messages" => self.conversation = conversation(value)?,
            "stream" => self.stream = boolean(name, value)?,
            "stream_options" => self.include_usage = stream_options(value)?,
            "n" => {
                if value.as_u64() != Some(1) {
                    return Err(ApiError::field(name, format!("n = {value}: must be 1")));
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

    fn check_together(&self, fields: &Map<String, Value>, vocab: usize) -> Parsed<()> {
        let given = |name: &str| fields.get(name).filter(|v| !v.is_null());
        if self.conversation.is_empty() {
            return Err(ApiError::field("messages", "messages is empty: at least one is needed"));
        }
        if let (Some(a), Some(b)) = (given("max_tokens"), given("max_completion_tokens"))
            && a != b
        {
            return Err(ApiError::field("max_tokens", "max_tokens and max_completion_tokens differ"));
        }
        if given("stream_options").is_some() && !self.stream {
            return Err(ApiError::field("stream_options", "stream_options needs stream = true"));
        }
        self.sampling.check_tokens(vocab).map_err(|e| ApiError::field("logit_bias", e.to_string()))
    }
}

/// The rows of the settings form. They are the table of the sampling parameters, with the API's own default for max_tokens.
pub fn parameters() -> Value {
    let default = |row: &Parameter| row.default.filter(|_| row.name != "max_tokens");
    json!(PARAMETERS.iter().map(|row| Parameter { default: default(row), ..*row }).collect::<Vec<_>>())
}

/// Whether a field that this server does not support has a value that asks for nothing.
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

/// 404: the server has another model.
pub fn model_not_found(name: &str, served: &str) -> ApiError {
    let short: String = name.chars().take(80).collect();
    let error = ApiError::field("model", format!("there is no model {short:?}; this server has {served:?}"));
    ApiError { status: StatusCode::NOT_FOUND, ..error }.code("model_not_found")
}

fn conversation(value: &Value) -> Parsed<Conversation> {
    let list = value.as_array().ok_or_else(|| ApiError::field("messages", "messages is not a list"))?;
    let mut conversation = Conversation::default();
    for (i, value) in list.iter().enumerate() {
        add_message(&mut conversation, &format!("messages[{i}]"), value)?;
    }
    Ok(conversation)
}

fn add_message(conversation: &mut Conversation, at: &str, value: &Value) -> Parsed<()> {
    let object = value.as_object().ok_or_else(|| ApiError::field(at, format!("{at} is not an object")))?;
    let role = format!("{at}.role");
    let named = object.get("role").and_then(Value::as_str);
    let named = named.ok_or_else(|| ApiError::field(&role, format!("{role} is missing or not a string")))?;
    if !ROLES.contains(&named) {
        let short: String = named.chars().take(80).collect();
        let message = format!("{role} = {short:?}: must be system, developer, user, assistant or tool");
        return Err(ApiError::field(&role, message));
    }
    let content = content(&format!("{at}.content"), object.get("content").unwrap_or(&Value::Null))?;
    let mut fields = vec![("content", content.into())];
    for (name, value) in object.iter().filter(|(k, v)| !v.is_null() && !["role", "content"].contains(&k.as_str())) {
        let field = format!("{at}.{name}");
        match (name.as_str(), value) {
            ("name", Value::String(text)) => fields.push(("name", text.into())),
            ("tool_call_id", Value::String(text)) if named == "tool" => fields.push(("tool_call_id", text.into())),
            ("name" | "tool_call_id", _) if !value.is_string() => {
                return Err(ApiError::field(&field, format!("{field} is not a string")));
            }
            _ => return Err(ApiError::unsupported(&field)),
        }
    }
    conversation.push(named, fields);
    Ok(())
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
        .ok_or_else(|| ApiError::field(at, format!("{at}: every part must have the type \"text\"")))
}

fn boolean(name: &str, value: &Value) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| ApiError::field(name, format!("{name} is not true or false")))
}

/// A seed that differs from request to request.
fn random_seed() -> u32 {
    std::hash::RandomState::new().build_hasher().finish() as u32
}

fn stream_options(value: &Value) -> Parsed<bool> {
    let object =
        value.as_object().ok_or_else(|| ApiError::field("stream_options", "stream_options is not an object"))?;
    match object.iter().find(|(k, v)| *k != "include_usage" && !v.is_null()) {
        Some((name, _)) => Err(ApiError::unsupported(&format!("stream_options.{name}"))),
        None => object.get("include_usage").map_or(Ok(false), |v| boolean("stream_options.include_usage", v)),
    }
}

/// The fields that all objects of one answer share.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The id of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The id of the model.
    pub model: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated so far.
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

    /// A chunk of a stream: a change. The last chunk also says why the answer ended.
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

/// The API's word for the end of a sequence. It has none for a full context or a shutdown: those are `length`.
pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Context | FinishReason::Cancelled => "length",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Kind;

    #[test]
    fn every_sampling_parameter_is_honoured() {
        let parse = |fields: &Value| ChatRequest::parse(fields.to_string().as_bytes(), "small", 8);
        let mut all = json!({"messages": [{"role": "user", "content": "hi"}]});
        let mut want = Sampling::default();
        for row in &PARAMETERS {
            all[row.name] = match row.kind {
                Kind::Number => json!(row.limits.unwrap().1),
                Kind::Integer => json!(row.limits.map_or(-9, |(_, high)| high as i64 - 9)),
                Kind::Bias => json!({"7": -3}),
                Kind::Strings => json!(["a", "b"]),
            };
            let before = want.clone();
            assert!(want.set(row.name, &all[row.name]).unwrap() && want != before, "{}", row.name);
        }
        assert_eq!(parse(&all).unwrap().sampling, want);
        all["max_completion_tokens"] = all["max_tokens"].clone();
        all["max_tokens"] = Value::Null;
        assert_eq!(parse(&all).unwrap().sampling, want);
        all["max_completion_tokens"] = json!(0);
        let error = parse(&all).unwrap_err();
        let message = "max_completion_tokens: max_tokens = 0: must be an integer from 1 to 4294967295";
        assert_eq!((error.param.as_deref(), &*error.message), (Some("max_completion_tokens"), message));
        all["max_completion_tokens"] = Value::Null;
        all["logit_bias"] = json!({"8": 1});
        assert!(parse(&all).unwrap_err().message.contains("token 8: the model has 8 tokens"));
    }
}
