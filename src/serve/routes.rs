//! Routes: which function answers which path and method. Errors of the router are OpenAI errors too.

use super::Served;
use super::chat;
use super::engine::{Phase, State};
use super::error::ApiError;
use super::openai::{model_not_found, parameters};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::path::FullPath;
use warp::reject::{MethodNotAllowed, Rejection};
use warp::reply::{Reply, Response};
use warp::{Filter, path};

/// The largest body of a request, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// A larger body is read and dropped up to this many bytes: its sender reads the answer only after it has sent the body.
const BODY_DISCARDED: usize = 16 << 20;
/// Time in which a body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The files of the page: its own, and those of `ui/`, which the browser demo has too.
const PAGE: [(&str, &str); 7] = [
    ("/", include_str!("page.html")),
    ("/page.js", include_str!("page.js")),
    ("/chat.js", include_str!("../../ui/chat.js")),
    ("/dom.js", include_str!("../../ui/dom.js")),
    ("/markdown.js", include_str!("../../ui/markdown.js")),
    ("/settings.js", include_str!("../../ui/settings.js")),
    ("/style.css", include_str!("../../ui/style.css")),
];

/// The page runs only its own scripts and styles, and connects only to its own server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// All routes of the server.
pub fn routes(served: Arc<Served>) -> BoxedFilter<(Response,)> {
    let with = {
        let served = Arc::clone(&served);
        warp::any().map(move || Arc::clone(&served))
    };
    let page = path::full().and_then(async |path: FullPath| page(path.as_str()).ok_or_else(warp::reject::not_found));
    let sampling = path!("sampling.json").map(|| warp::reply::json(&parameters()).into_response());
    let health = path!("health").and(with.clone()).map(|s: Arc<Served>| health(&s));
    let metrics = path!("metrics").and(with.clone()).map(|s: Arc<Served>| {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        warp::reply::with_header(s.metrics.render(), "content-type", kind).into_response()
    });
    let models = path!("v1" / "models")
        .and(with.clone())
        .map(|s: Arc<Served>| warp::reply::json(&json!({"object": "list", "data": [model(&s)]})).into_response());
    let named = path!("v1" / "models" / String).and(with.clone()).map(|id: String, s: Arc<Served>| {
        let id = percent_decode_str(&id).decode_utf8_lossy();
        if id == s.id {
            warp::reply::json(&model(&s)).into_response()
        } else {
            model_not_found(&id, &s.id).into_response()
        }
    });
    let api = health.or(metrics).unify().or(models).unify().or(named).unify();
    let reads = warp::get().and(page.or(sampling).unify().or(api).unify());
    let chat = path!("v1" / "chat" / "completions")
        .and(warp::post())
        .and(with)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(async |served: Arc<Served>, headers: warp::http::HeaderMap, body| {
            answer_chat(served, headers, body).await.unwrap_or_else(Reply::into_response)
        });
    let all = reads.or(chat).unify().recover(refuse).unify();
    all.map(move |response: Response| {
        served.metrics.requests.fetch_add(1, Relaxed);
        served.metrics.errors.fetch_add(u64::from(response.status().as_u16() >= 400), Relaxed);
        response
    })
    .boxed()
}

/// A file of the page.
fn page(path: &str) -> Option<Response> {
    let (_, text) = PAGE.iter().find(|(name, _)| *name == path)?;
    let kind = match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => "text/html; charset=utf-8",
    };
    let response = warp::http::Response::builder()
        .header("content-type", kind)
        .header("content-security-policy", PAGE_POLICY)
        .header("x-content-type-options", "nosniff")
        .header("referrer-policy", "no-referrer")
        .header("cache-control", "no-cache")
        .body(*text);
    Some(response.into_response())
}

fn health(served: &Served) -> Response {
    let State { phase, device } = served.engine.state();
    let (status, word) = match phase {
        _ if served.draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Serving => (StatusCode::OK, "ok"),
        Phase::Reopening => (StatusCode::SERVICE_UNAVAILABLE, "reopening the device"),
        Phase::Ended(error) if error.code == Some("device_lost") => (StatusCode::SERVICE_UNAVAILABLE, "device lost"),
        Phase::Ended(_) => (StatusCode::SERVICE_UNAVAILABLE, "engine stopped"),
    };
    let m = &served.metrics;
    let body = json!({
        "status": word,
        "model": served.id,
        "device": device,
        "device_losses": m.device_losses.load(Relaxed),
        "slots": m.slots.load(Relaxed),
        "active": m.active.load(Relaxed),
        "waiting": m.waiting.load(Relaxed),
    });
    warp::reply::with_status(warp::reply::json(&body), status).into_response()
}

fn model(served: &Served) -> Value {
    json!({
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": "nanotern",
        "context_length": served.context,
    })
}

async fn answer_chat(
    served: Arc<Served>,
    headers: warp::http::HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
) -> Result<Response, ApiError> {
    check_origin(&served, &headers)?;
    let declared = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
    let body = tokio::time::timeout(BODY_TIMEOUT, collect(declared.unwrap_or(0), body)).await;
    let late =
        |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {BODY_TIMEOUT:?}"));
    let body = body.map_err(late)??;
    if served.draining() {
        return Err(ApiError::draining());
    }
    chat::complete(served, body).await
}

/// Refuses pages of other sites. A browser lets such a page send requests to a server on this machine, directly or through
/// a host name that resolves to this machine.
fn check_origin(served: &Served, headers: &warp::http::HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let forbidden = |what: &str| Err(ApiError::new(StatusCode::FORBIDDEN, what).code("forbidden_origin"));
    let host = text("host").unwrap_or_default();
    if let Some(origin) = text("origin")
        && origin.split_once("://").map(|(_, authority)| authority) != Some(host)
    {
        return forbidden("this server answers its own page only, not a page of another site");
    }
    let name = if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
    let local = name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || name.is_empty();
    if served.loopback && !local {
        return forbidden("this server answers only as localhost or by its address");
    }
    Ok(())
}

/// Collects a body; refuses one that is too large.
async fn collect(
    declared: usize,
    mut body: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {BODY_LIMIT} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
    };
    if declared > BODY_DISCARDED {
        return Err(too_large());
    }
    let (mut kept, mut seen) = (BytesMut::new(), 0);
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "the body broke off"))?;
        seen += part.remaining();
        if seen > BODY_DISCARDED {
            break;
        }
        if seen <= BODY_LIMIT {
            kept.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        } else {
            kept = BytesMut::new();
        }
    }
    if seen > BODY_LIMIT { Err(too_large()) } else { Ok(kept.freeze()) }
}

/// The answer where no route takes the request.
async fn refuse(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if rejection.find::<MethodNotAllowed>().is_some() {
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method");
        error.code("method_not_allowed")
    } else if rejection.is_not_found() {
        ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path").code("not_found")
    } else {
        ApiError::new(StatusCode::BAD_REQUEST, "the request cannot be read")
    };
    Ok(error.into_response())
}
