//! Conversion of values between Rust and JavaScript, and their TypeScript types.

use nanotern::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

pub type Result<T, E = JsValue> = std::result::Result<T, E>;

/// An error for JavaScript: an `Error` with a `code`.
pub fn error(error: Error) -> JsValue {
    let code = match &error {
        Error::Usage(_) => "invalid_request",
        Error::Invalid { .. } | Error::Io { .. } | Error::Model(_) => "invalid_file",
        Error::OutOfMemory(_) => "out_of_memory",
        Error::DeviceLost(_) => "device_lost",
        Error::Device(_) => "device",
        Error::Checkpoint(_) | Error::NotFinite(_) | Error::Stopped | Error::Training(_) => "training",
    };
    coded(code, &error.to_string())
}

/// An error about a model file.
pub fn invalid_file(what: String) -> JsValue {
    coded("invalid_file", &what)
}

/// An error of loading a model: what the library would blame on its caller is the fault of the file.
pub fn load_error(e: Error) -> JsValue {
    match e {
        Error::Usage(what) => invalid_file(what),
        other => error(other),
    }
}

fn coded(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // Setting a property of a new object cannot fail.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// Makes a plain object.
pub fn object(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).unwrap_throw();
    js_sys::JSON::parse(&text).unwrap_throw()
}

/// Reads a plain object; undefined and null count as `{}`.
///
/// # Errors
/// `invalid_request`, with `what` as the name of the object.
pub fn read<T: DeserializeOwned>(value: &JsValue, what: &str) -> Result<T> {
    let text = match value.is_undefined() || value.is_null() {
        true => "{}".to_string(),
        false => js_sys::JSON::stringify(value).map(String::from)?,
    };
    serde_json::from_str(&text).map_err(|e| error(Error::usage(format!("{what}: {e}"))))
}

#[wasm_bindgen(typescript_custom_section)]
const SAMPLING: &str = nanotern::infer::Sampling::TYPESCRIPT;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export type Backend = "webgpu" | "cpu";

export interface RuntimeInfo {
  backend: Backend;
  /** A description of the backend. */
  device: string;
  /** Why `auto` did not choose WebGPU. */
  note: string | null;
  /** The table of sampling parameters. */
  parameters: Parameter[];
}

/** The values of `error.code`. */
export type ErrorCode =
  "invalid_request" | "invalid_file" | "out_of_memory" | "device_lost" | "device" | "training";

export interface Message { role: "system" | "user" | "assistant"; content: string; }

/** A row of the table of sampling parameters: the fields of `Sampling`. */
export interface Parameter {
  name: keyof Sampling;
  kind: "number" | "integer" | "bias" | "strings";
  /** The least and the largest value; of strings, bytes. */
  limits: [number, number] | null;
  default: number | null;
  help: string;
}

export type FinishReason = "stop" | "length" | "cancelled";

/** The result of a step of an answer. */
export interface Delta {
  text: string;
  /** Null until the answer ends. */
  finish_reason: FinishReason | null;
  prompt_tokens: number;
  completion_tokens: number;
}

export interface LoadProgress {
  received: number;
  /** Null if the server does not say. */
  total: number | null;
  /** Null until the header of the file has arrived. */
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
  /** A description of the backend. */
  device: string;
}

export interface Difference { node: number; op: string; output: string; error: number; }
"#;
