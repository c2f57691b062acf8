//! Values on their way between Rust and JavaScript, and the types that say what they look like.

use nanotern::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

pub type Result<T, E = JsValue> = std::result::Result<T, E>;

/// An error as JavaScript sees it.
pub fn error(error: Error) -> JsValue {
    let code = match &error {
        Error::Usage(_) => "invalid_request",
        Error::Invalid { .. } | Error::Io { .. } | Error::Model(_) => "invalid_file",
        Error::OutOfMemory(_) => "out_of_memory",
        Error::DeviceLost(_) => "device_lost",
        Error::Device(_) => "device",
        Error::Checkpoint(_) | Error::Training(_) => "training",
    };
    coded(code, &error.to_string())
}

/// An error about a model file.
pub fn invalid_file(what: String) -> JsValue {
    coded("invalid_file", &what)
}

fn coded(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // A fresh object takes any property.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// A plain object.
pub fn object(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).unwrap_throw();
    js_sys::JSON::parse(&text).unwrap_throw()
}

/// Reads a plain object; `what` names it. Nothing is as good as an empty one.
pub fn read<T: DeserializeOwned>(value: &JsValue, what: &str) -> Result<T> {
    let text = match value.is_undefined() || value.is_null() {
        true => "{}".to_string(),
        false => js_sys::JSON::stringify(value).map(String::from)?,
    };
    serde_json::from_str(&text).map_err(|e| error(Error::usage(format!("{what}: {e}"))))
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export type Backend = "webgpu" | "cpu";

/** What an error is about: `error.code`. */
export type ErrorCode =
  "invalid_request" | "invalid_file" | "out_of_memory" | "device_lost" | "device" | "training";

export interface Message { role: "system" | "user" | "assistant"; content: string; }

/** How tokens are drawn. */
export interface Sampling {
  /** 0 takes the likeliest token. */
  temperature?: number;
  /** Only the k likeliest tokens; 0 for all. */
  top_k?: number;
  /** Only the likeliest tokens that hold this share of the probability. */
  top_p?: number;
  min_p?: number;
  repetition_penalty?: number;
  seed?: number;
  /** Tokens to draw at most. */
  max_tokens?: number;
  /** Text that ends the output. */
  stop?: string[];
}

export type FinishReason = "stop" | "length" | "cancelled";

/** What a step of a generation brought. */
export interface Delta {
  text: string;
  /** Null while it goes on. */
  finish_reason: FinishReason | null;
  prompt_tokens: number;
  completion_tokens: number;
}

export interface LoadProgress {
  received: number;
  /** Null where the server does not say. */
  total: number | null;
  /** Once the head of the file has come. */
  parameters: number | null;
}

export interface ModelInfo {
  parameters: number;
  vocabulary: number;
  /** Tokens. */
  context: number;
  chat: boolean;
  device_bytes: number;
  dispatches_per_token: number;
  backend: Backend;
  /** The backend in words. */
  device: string;
}

export interface Difference { node: number; op: string; output: string; error: number; }
"#;
