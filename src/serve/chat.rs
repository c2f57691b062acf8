//! `POST /v1/chat/completions`: turns a request into a running sequence, and the tokens of the sequence into an answer.

use super::Served;
use super::engine::{Ticket, Update};
use super::error::ApiError;
use super::openai::{ChatRequest, Reply, finish_reason};
use crate::infer::{FinishReason, TextStream};
use crate::rng;
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::{Reply as _, Response};

/// After this much silence a stream sends a comment, so that the connection stays open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A request that is ready for the engine.
struct Prepared {
    request: ChatRequest,
    prompt: Vec<u32>,
}

/// Answers a request, in one piece or as server-sent events.
///
/// # Errors
/// When the request is refused, the queue is full or the engine has failed.
pub async fn complete(served: Arc<Served>, body: Bytes) -> Result<Response, ApiError> {
    let for_parsing = Arc::clone(&served);
    let prepared = tokio::task::spawn_blocking(move || prepare(&for_parsing, &body)).await;
    let Prepared { request, prompt } = prepared.map_err(|_| broken())??;
    let prompt_tokens = prompt.len();
    let text = TextStream::new(Arc::clone(&served.tokenizer), request.sampling.stop.clone());
    let ticket = served.engine.submit(prompt, request.sampling)?;
    let generation = Generation { ticket, text, reply: reply(&served, prompt_tokens) };
    if !request.stream {
        return Ok(whole(generation).await?.into_response());
    }
    let chunks = Chunks::new(generation, request.include_usage);
    let mut response = warp::reply::stream(chunks.into_stream()).into_response();
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn broken() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; this is a bug").code("engine_error")
}

fn prepare(served: &Served, body: &[u8]) -> Result<Prepared, ApiError> {
    let request = ChatRequest::parse(body, &served.id, served.vocab)?;
    // No template makes these fit the context. Long texts may fit: a token can stand for a word of any length.
    let messages = request.conversation.len();
    if messages > 4 * served.context {
        return Err(too_long(&format!("{messages} messages"), served.context));
    }
    let prompt = served.template.encode_conversation(&request.conversation, &served.tokenizer);
    let prompt = prompt.map_err(|e| ApiError::field("messages", e.to_string()))?;
    if prompt.len() >= served.context {
        return Err(too_long(&format!("a prompt of {} tokens", prompt.len()), served.context));
    }
    Ok(Prepared { request, prompt })
}

fn too_long(what: &str, context: usize) -> ApiError {
    let message = format!("{what}: the model's context of {context} tokens must leave room to answer");
    ApiError::field("messages", message).code("context_length_exceeded")
}

fn reply(served: &Served, prompt_tokens: usize) -> Reply {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unique = rng::mix(now.as_nanos() as u64 ^ rng::mix(COUNT.fetch_add(1, Ordering::Relaxed)));
    Reply {
        id: format!("chatcmpl-{unique:016x}"),
        created: now.as_secs(),
        model: served.id.clone(),
        prompt_tokens,
        completion_tokens: 0,
    }
}

/// A running sequence and its text.
struct Generation {
    ticket: Ticket,
    text: TextStream,
    reply: Reply,
}

/// What an update of a sequence means for its text.
enum Step {
    Text(String),
    End(String, &'static str),
    Failed(ApiError),
}

impl Generation {
    fn take(&mut self, update: Option<Update>) -> Step {
        match update {
            Some(Update::Token(token)) => {
                self.reply.completion_tokens += 1;
                let piece = self.text.push(token);
                if piece.stopped { Step::End(piece.text, "stop") } else { Step::Text(piece.text) }
            }
            Some(Update::Finished(reason)) => {
                let piece = self.text.finish();
                let reason = if piece.stopped { FinishReason::Stop } else { reason };
                Step::End(piece.text, finish_reason(reason))
            }
            Some(Update::Failed(error)) => Step::Failed(error),
            None => Step::Failed(broken()),
        }
    }
}

/// The answer in one piece. When the client goes away, this future is dropped, and the ticket with it.
async fn whole(mut generation: Generation) -> Result<impl warp::Reply, ApiError> {
    let mut text = String::new();
    loop {
        let update = generation.ticket.updates.recv().await;
        match generation.take(update) {
            Step::Text(piece) => text.push_str(&piece),
            Step::End(piece, finish) => {
                text.push_str(&piece);
                return Ok(warp::reply::json(&generation.reply.whole(&text, finish)));
            }
            Step::Failed(error) => return Err(error),
        }
    }
}

/// A server-sent event. The blank is optional in the standard, but clients that are written by hand expect it as OpenAI sends
/// it. `data` is one line.
fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// The answer as server-sent events.
struct Chunks {
    /// None once the sequence has ended.
    generation: Option<Generation>,
    ready: VecDeque<String>,
    include_usage: bool,
}

impl Chunks {
    fn new(generation: Generation, include_usage: bool) -> Chunks {
        let mut chunks = Chunks { generation: None, ready: VecDeque::new(), include_usage };
        chunks.say(&generation.reply.chunk(json!({"role": "assistant", "content": ""}), None));
        chunks.generation = Some(generation);
        chunks
    }

    fn say(&mut self, value: &Value) {
        self.ready.push_back(event(&value.to_string()));
    }

    fn into_stream(mut self) -> impl Stream<Item = Result<String, Infallible>> + Send + Sync {
        let mut silence = Box::pin(sleep(KEEP_ALIVE));
        stream::poll_fn(move |cx| {
            let event = match self.poll_event(cx) {
                Poll::Ready(event) => event,
                Poll::Pending if silence.as_mut().poll(cx).is_ready() => Some(":\n\n".to_string()),
                Poll::Pending => return Poll::Pending,
            };
            silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
            Poll::Ready(event.map(Ok))
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Some(generation) = &mut self.generation else { return Poll::Ready(None) };
            let Poll::Ready(update) = generation.ticket.updates.poll_recv(cx) else { return Poll::Pending };
            let step = generation.take(update);
            self.follow(step);
        }
    }

    fn follow(&mut self, step: Step) {
        let content = |text: String| json!({"content": text});
        match step {
            Step::Text(text) if text.is_empty() => {}
            Step::Text(text) => {
                let chunk = self.generation.as_ref().map(|g| g.reply.chunk(content(text), None));
                chunk.iter().for_each(|c| self.say(c));
            }
            Step::End(text, finish) => {
                let Some(Generation { reply, .. }) = self.generation.take() else { return };
                if !text.is_empty() {
                    self.say(&reply.chunk(content(text), None));
                }
                self.say(&reply.chunk(json!({}), Some(finish)));
                if self.include_usage {
                    self.say(&reply.usage_chunk());
                }
                self.ready.push_back(event("[DONE]"));
            }
            Step::Failed(error) => {
                self.generation = None;
                self.say(&error.body());
                self.ready.push_back(event("[DONE]"));
            }
        }
    }
}
