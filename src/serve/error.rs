//! Errors in the form that OpenAI clients read: `{"error": {"message", "type", "param", "code"}}`. The client chooses its
//! exception by the status.

use serde_json::json;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::{Reply, Response};

/// An error for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A sentence for the user.
    pub message: String,
    /// The field of the request that is wrong, if there is one.
    pub param: Option<String>,
    /// A word for programs, if there is one.
    pub code: Option<&'static str>,
    /// Seconds after which the client may try again.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error without field and code.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// 400: the field `param` is wrong.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// 400: this server does not support the field `param`.
    pub fn unsupported(param: &str) -> Self {
        let message = format!("this server does not support the parameter {param:?}");
        Self::field(param, message).code("unsupported_parameter")
    }

    /// Adds a code.
    pub fn code(self, code: &'static str) -> Self {
        ApiError { code: Some(code), ..self }
    }

    /// Adds a time after which the client may try again.
    pub fn retry_after(self, seconds: u32) -> Self {
        ApiError { retry_after: Some(seconds), ..self }
    }

    /// 503: the server is shutting down.
    pub fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down").code("shutting_down")
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limit_error",
            503 => "unavailable_error",
            500..600 => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body of the response.
    pub fn body(&self) -> serde_json::Value {
        let ApiError { message, param, code, .. } = self;
        json!({"error": {"message": message, "type": self.kind(), "param": param, "code": code}})
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = warp::reply::json(&self.body()).into_response();
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
        }
        response
    }
}
