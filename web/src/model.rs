//! A model that answers: one sequence at a time, step by step, so that its caller decides when to go on.

use crate::js::{Result, error, object, read};
use crate::runtime::name;
use nanotern::Error;
use nanotern::backend::Backend;
use nanotern::formats::TextConfig;
use nanotern::infer::{ChatTemplate, Engine, Event, FinishReason, Message, Sampling, TextStream};
use nanotern::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
pub struct Model {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    info: Info,
    running: Option<Running>,
}

#[derive(Serialize)]
struct Info {
    parameters: usize,
    vocabulary: usize,
    context: usize,
    chat: bool,
    device_bytes: usize,
    dispatches_per_token: usize,
    backend: &'static str,
    device: String,
}

struct Running {
    text: TextStream,
    cancel: Arc<AtomicBool>,
    prompt_tokens: usize,
    completion_tokens: usize,
}

/// How a caller wants tokens drawn; what it leaves open is as everywhere else.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    seed: u32,
    max_tokens: usize,
    stop: Vec<String>,
}

impl Default for Request {
    fn default() -> Self {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, .. } =
            Sampling::default();
        Request { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, stop: Vec::new() }
    }
}

#[derive(Default, Serialize)]
struct Delta {
    text: String,
    finish_reason: Option<&'static str>,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Model {
    pub(crate) fn new(
        engine: Engine,
        text: &TextConfig,
        vocab: usize,
        parameters: usize,
        backend: &Backend,
    ) -> Result<Model> {
        let no_tokenizer = || Error::usage("the model has no tokenizer");
        let tokenizer = text.tokenizer(vocab).and_then(|t| t.ok_or_else(no_tokenizer)).map_err(error)?;
        // A model with another template still goes on from texts.
        let template = text.chat_template.as_deref().and_then(|t| ChatTemplate::new(t).ok());
        let info = Info {
            parameters,
            vocabulary: vocab,
            context: engine.context(),
            chat: template.is_some(),
            device_bytes: engine.device_bytes(),
            dispatches_per_token: engine.dispatches_per_token(),
            backend: name(backend),
            device: backend.describe(),
        };
        Ok(Model { engine, tokenizer: Arc::new(tokenizer), template, info, running: None })
    }

    fn start(&mut self, prompt: &[u32], sampling: &JsValue) -> Result<()> {
        if self.running.is_some() {
            return Err(error(Error::usage("the model is still answering: cancel that first")));
        }
        let Request { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, stop } =
            read(sampling, "sampling")?;
        let logit_bias = Vec::new();
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, logit_bias, seed, max_tokens };
        let cancel = Arc::new(AtomicBool::new(false));
        self.engine.start(prompt, sampling, Arc::clone(&cancel)).map_err(error)?;
        let text = TextStream::new(Arc::clone(&self.tokenizer), stop);
        self.running = Some(Running { text, cancel, prompt_tokens: prompt.len(), completion_tokens: 0 });
        Ok(())
    }

    /// Frees the slot of a sequence that failed, or that a stop string ended. Nothing is submitted for that.
    async fn leave(&mut self, running: &Running) -> nanotern::Result<()> {
        running.cancel.store(true, Ordering::Relaxed);
        self.engine.step().await.map(|_| ())
    }
}

#[wasm_bindgen]
impl Model {
    #[wasm_bindgen(getter, unchecked_return_type = "ModelInfo")]
    pub fn info(&self) -> JsValue {
        object(&self.info)
    }

    /// Starts the answer to a conversation; returns the number of tokens in it.
    pub fn chat(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Message[]")] messages: &JsValue,
        #[wasm_bindgen(unchecked_param_type = "Sampling | undefined")] sampling: &JsValue,
    ) -> Result<usize> {
        let messages: Vec<Message> = read(messages, "messages")?;
        let none = || error(Error::usage("the model has no chat template of nanotern's: complete a text instead"));
        let template = self.template.as_ref().ok_or_else(none)?;
        let prompt = template.encode(&messages, &self.tokenizer).map_err(error)?;
        self.start(&prompt, sampling)?;
        Ok(prompt.len())
    }

    /// Starts to go on from a text; returns the number of tokens in it.
    pub fn complete(
        &mut self,
        prompt: &str,
        #[wasm_bindgen(unchecked_param_type = "Sampling | undefined")] sampling: &JsValue,
    ) -> Result<usize> {
        let prompt = self.tokenizer.encode(prompt);
        self.start(&prompt, sampling)?;
        Ok(prompt.len())
    }

    /// Goes on by one token, or a part of the prompt.
    #[wasm_bindgen(unchecked_return_type = "Delta")]
    pub async fn step(&mut self) -> Result<JsValue> {
        let idle = || error(Error::usage("nothing was asked of the model"));
        let mut running = self.running.take().ok_or_else(idle)?;
        let mut delta = Delta::default();
        let mut finished = None;
        let events = match self.engine.step().await {
            Ok(events) => events,
            Err(e) => {
                self.leave(&running).await.map_err(error)?;
                return Err(error(e));
            }
        };
        for (_, event) in events {
            match event {
                Event::Token(token) => {
                    running.completion_tokens += 1;
                    let piece = running.text.push(token);
                    delta.text.push_str(&piece.text);
                    if piece.stopped {
                        running.cancel.store(true, Ordering::Relaxed);
                        finished = Some(FinishReason::Stop);
                    }
                }
                Event::Finished(reason) => finished = finished.or(Some(reason)),
            }
        }
        (delta.prompt_tokens, delta.completion_tokens) = (running.prompt_tokens, running.completion_tokens);
        match finished {
            Some(reason) => {
                let piece = running.text.finish();
                delta.text.push_str(&piece.text);
                let reason = if piece.stopped { FinishReason::Stop } else { reason };
                delta.finish_reason = Some(finish_reason(reason));
                self.leave(&running).await.map_err(error)?;
            }
            None => self.running = Some(running),
        }
        Ok(object(&delta))
    }

    /// Ends the answer: the next step says so.
    pub fn cancel(&mut self) {
        if let Some(running) = &self.running {
            running.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Logits after the last token of a text.
    pub async fn logits(&mut self, prompt: &str) -> Result<Vec<f32>> {
        if self.running.is_some() {
            return Err(error(Error::usage("the model is still answering: cancel that first")));
        }
        let ids = self.tokenizer.encode(prompt);
        let rows = self.engine.prompt_logits(&ids, ids.len().clamp(1, 16)).await.map_err(error)?;
        Ok(rows.into_iter().next_back().unwrap_or_default())
    }

    /// Token ids of a text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text)
    }
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Context => "length",
        FinishReason::Cancelled => "cancelled",
    }
}
