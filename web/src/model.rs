//! A model that answers one request at a time. Its caller runs each step, and so decides when to go on.

use crate::js::{Result, error, load_error, object, read};
use crate::runtime::name;
use nanotern::Error;
use nanotern::backend::Backend;
use nanotern::formats::{TextConfig, begin_with};
use nanotern::infer::{ChatTemplate, Engine, Event, FinishReason, Message, Sampling, TextStream};
use nanotern::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wasm_bindgen::prelude::*;

/// A model on a device.
#[wasm_bindgen]
pub struct Model {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    /// With which token every prompt begins.
    start: Option<u32>,
    info: Value,
    running: Option<Running>,
}

struct Running {
    text: TextStream,
    cancel: Arc<AtomicBool>,
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
        let tokenizer = text.tokenizer(vocab).and_then(|t| t.ok_or_else(no_tokenizer)).map_err(load_error)?;
        // A model with another template can still complete texts.
        let template = ChatTemplate::new(text, &tokenizer).ok().flatten();
        let info = json!({
            "parameters": parameters,
            "vocabulary": vocab,
            "context": engine.context(),
            "chat": template.is_some(),
            "device_bytes": engine.device_bytes(),
            "dispatches_per_token": engine.dispatches_per_token(),
            "backend": name(backend),
            "device": backend.describe(),
        });
        Ok(Model { engine, tokenizer: Arc::new(tokenizer), template, start: text.prompt_start(), info, running: None })
    }

    fn start(&mut self, prompt: &[u32], sampling: &JsValue) -> Result<()> {
        if self.running.is_some() {
            return Err(error(Error::usage("the model is still answering: cancel that first")));
        }
        let given: Map<String, Value> = read(sampling, "sampling")?;
        let seed = (js_sys::Math::random() * f64::from(u32::MAX)) as u32;
        let mut sampling = Sampling { seed, ..Sampling::default() };
        sampling.update(&given).map_err(error)?;
        let text = TextStream::new(Arc::clone(&self.tokenizer), sampling.stop.clone());
        let cancel = Arc::new(AtomicBool::new(false));
        self.engine.start(prompt, sampling, Arc::clone(&cancel)).map_err(error)?;
        self.running = Some(Running { text, cancel, prompt_tokens: prompt.len(), completion_tokens: 0 });
        Ok(())
    }

    /// Frees the slot of a sequence that failed or that a stop string ended. This submits nothing to the device.
    async fn leave(&mut self, running: &Running) -> nanotern::Result<()> {
        running.cancel.store(true, Ordering::Relaxed);
        self.engine.step().await.map(|_| ())
    }
}

#[wasm_bindgen]
impl Model {
    /// What is known of the model.
    #[wasm_bindgen(getter, unchecked_return_type = "ModelInfo")]
    pub fn info(&self) -> JsValue {
        object(&self.info)
    }

    /// Starts the answer to a conversation. Returns the number of tokens of the prompt.
    pub fn chat(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Message[]")] messages: &JsValue,
        #[wasm_bindgen(unchecked_param_type = "Sampling | undefined")] sampling: &JsValue,
    ) -> Result<usize> {
        let messages: Vec<Message> = read(messages, "messages")?;
        let none = || error(Error::usage("the model has no chat template of nanotern's: use `completions`"));
        let template = self.template.as_ref().ok_or_else(none)?;
        let prompt = template.encode(&messages, &self.tokenizer).map_err(error)?;
        self.start(&prompt, sampling)?;
        Ok(prompt.len())
    }

    /// Starts to complete a text. Returns the number of tokens of the prompt.
    pub fn complete(
        &mut self,
        prompt: &str,
        #[wasm_bindgen(unchecked_param_type = "Sampling | undefined")] sampling: &JsValue,
    ) -> Result<usize> {
        let prompt = begin_with(self.start, self.tokenizer.encode(prompt).map_err(error)?);
        self.start(&prompt, sampling)?;
        Ok(prompt.len())
    }

    /// Generates one token, or reads a chunk of the prompt.
    #[wasm_bindgen(unchecked_return_type = "Delta")]
    pub async fn step(&mut self) -> Result<JsValue> {
        let idle = || error(Error::usage("no answer was started"));
        let mut running = self.running.take().ok_or_else(idle)?;
        let mut text = String::new();
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
                    text.push_str(&piece.text);
                    if piece.stopped {
                        running.cancel.store(true, Ordering::Relaxed);
                        finished = Some(FinishReason::Stop);
                    }
                }
                Event::Finished(reason) => finished = finished.or(Some(reason)),
                Event::Failed(why) => return Err(error(Error::Model(why))),
            }
        }
        let finish = finished.map(|reason| {
            let piece = running.text.finish();
            text.push_str(&piece.text);
            finish_reason(if piece.stopped { FinishReason::Stop } else { reason })
        });
        let delta = object(&json!({
            "text": text,
            "finish_reason": finish,
            "prompt_tokens": running.prompt_tokens,
            "completion_tokens": running.completion_tokens,
        }));
        match finish {
            Some(_) => self.leave(&running).await.map_err(error)?,
            None => self.running = Some(running),
        }
        Ok(delta)
    }

    /// Ends the answer: the next step returns `cancelled`.
    pub fn cancel(&mut self) {
        if let Some(running) = &self.running {
            running.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// The logits after the last token of a text.
    pub async fn logits(&mut self, prompt: &str) -> Result<Vec<f32>> {
        if self.running.is_some() {
            return Err(error(Error::usage("the model is still answering: cancel that first")));
        }
        let ids = self.tokenizer.encode(prompt).map_err(error)?;
        let rows = self.engine.prompt_logits(&ids, ids.len().clamp(1, 16)).await.map_err(error)?;
        Ok(rows.into_iter().next_back().unwrap_or_default())
    }

    /// The token ids of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text).map_err(error)
    }
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Context => "length",
        FinishReason::Cancelled => "cancelled",
    }
}
