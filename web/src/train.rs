//! Training in the page: the same session as a native run, of which its caller asks step after step.

use crate::js::{Result, error, object, read};
use crate::model::Model;
use nanotern::Error;
use nanotern::backend::Backend;
use nanotern::data::{Corpus, split_text};
use nanotern::formats::{Format, Ternary, gguf};
use nanotern::infer::{Engine, EngineOptions};
use nanotern::model::{Form, Weight};
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{Config, Session};
use serde::Serialize;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Classes of a histogram of weights, from -3 to 3 scales.
const BINS: usize = 96;
const SPAN: f32 = 3.0;

#[wasm_bindgen]
pub struct TrainSession {
    backend: Rc<Backend>,
    session: Session,
    /// Steps whose statistics were read.
    read: u64,
}

#[derive(Serialize)]
struct Info {
    parameters: usize,
    vocabulary: usize,
    training_tokens: usize,
    validation_tokens: usize,
    tokens_per_step: usize,
    total_steps: u64,
    device_bytes: usize,
    /// Ternary matrices.
    matrices: Vec<String>,
    config: Config,
}

#[derive(Serialize)]
struct Stats {
    step: u64,
    /// Null where it is no number, which JSON does not have; such a step is skipped.
    loss: f32,
    grad_norm: f32,
    skipped: bool,
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** Sections and keys of a configuration file; what is left out is as in the `tiny` preset. */
export interface TrainConfig {
  model?: { dim?: number; layers?: number; heads?: number; kv_heads?: number; ffn?: number; seq_len?: number;
    group_size?: number; mhc_streams?: 1 | 2 | 4; [key: string]: unknown };
  data?: { val_fraction?: number };
  train?: { batch_size?: number; total_steps?: number; seed?: number; [key: string]: unknown };
  optim?: { muon_lr?: number; aux_lr?: number; warmup_steps?: number; [key: string]: unknown };
}

export interface TrainInfo {
  parameters: number;
  vocabulary: number;
  training_tokens: number;
  validation_tokens: number;
  tokens_per_step: number;
  total_steps: number;
  device_bytes: number;
  /** Names of the ternary matrices. */
  matrices: string[];
  config: TrainConfig;
}

/** Losses are in nats per token. */
export interface StepStats { step: number; loss: number | null; grad_norm: number; skipped: boolean; }
"#;

/// A matrix as it stands.
#[wasm_bindgen]
pub struct Weights {
    outs: usize,
    dim: usize,
    codes: Vec<i8>,
    histogram: Vec<u32>,
}

#[wasm_bindgen]
impl Weights {
    /// Rows.
    #[wasm_bindgen(getter)]
    pub fn outs(&self) -> usize {
        self.outs
    }

    /// Columns.
    #[wasm_bindgen(getter)]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// (outs, dim): -1, 0 or 1.
    #[wasm_bindgen(getter)]
    pub fn codes(&self) -> Vec<i8> {
        self.codes.clone()
    }

    /// How many latent weights lie in each of 96 equal classes from -3 to 3 times their scale; those beyond are in the
    /// outermost.
    #[wasm_bindgen(getter)]
    pub fn histogram(&self) -> Vec<u32> {
        self.histogram.clone()
    }
}

/// Files of a trained model.
#[wasm_bindgen]
pub struct Export {
    gguf: Vec<u8>,
    mhc: Option<Vec<u8>>,
}

#[wasm_bindgen]
impl Export {
    /// All that serving needs.
    #[wasm_bindgen(getter)]
    pub fn gguf(&self) -> Vec<u8> {
        self.gguf.clone()
    }

    /// The residual mixing by itself, of a model with several streams.
    #[wasm_bindgen(getter)]
    pub fn mhc(&self) -> Option<Vec<u8>> {
        self.mhc.clone()
    }
}

impl TrainSession {
    pub(crate) async fn new(backend: Rc<Backend>, text: &str, config: &JsValue) -> Result<TrainSession> {
        let config: Config = read(config, "config")?;
        config.check().map_err(error)?;
        let (train, val) = split_text(text, config.data.val_fraction).map_err(error)?;
        let corpus = Corpus::from_text("text", train, val, Tokenizer::bytes()).map_err(error)?;
        let mut session = Session::new(config, corpus, &backend).map_err(error)?;
        session.trainer.program.ready().await.map_err(error)?;
        Ok(TrainSession { backend, session, read: 0 })
    }

    /// The ternary matrices.
    fn matrices(&self) -> impl Iterator<Item = &Weight> {
        self.session.trainer.step.model.weights.iter().filter(|weight| matches!(weight.form, Form::Ternary { .. }))
    }
}

#[wasm_bindgen]
impl TrainSession {
    #[wasm_bindgen(getter, unchecked_return_type = "TrainInfo")]
    pub fn info(&self) -> JsValue {
        let Session { config, corpus, trainer, .. } = &self.session;
        let step = &trainer.step;
        object(&Info {
            parameters: step.model.param_count(),
            vocabulary: corpus.vocab_size,
            training_tokens: corpus.train.len(),
            validation_tokens: corpus.val.len(),
            tokens_per_step: step.shape.tokens(),
            total_steps: config.train.total_steps,
            device_bytes: step.plan.bytes(),
            matrices: self.matrices().map(|weight| weight.name.clone()).collect(),
            config: config.clone(),
        })
    }

    /// Trains `n` steps, at most to the last; their statistics.
    #[wasm_bindgen(unchecked_return_type = "StepStats[]")]
    pub async fn step(&mut self, n: u32) -> Result<JsValue> {
        let last = self.session.config.train.total_steps.min(self.session.step + u64::from(n.clamp(1, 64)));
        while self.session.step < last {
            self.session.submit().map_err(error)?;
        }
        let stats = self.session.trainer.fetch_stats(self.read..last).await.map_err(error)?;
        let steps = self.read + 1..;
        self.read = last;
        let plain = steps.zip(stats).map(|(step, s)| {
            let (loss, grad_norm, skipped) = (s.loss, s.grad_norm, s.skipped);
            Stats { step, loss, grad_norm, skipped }
        });
        Ok(object(&plain.collect::<Vec<_>>()))
    }

    /// Loss of the validation text, in nats per token.
    pub async fn validate(&mut self) -> Result<f64> {
        self.session.validate().await.map_err(error)
    }

    /// One of the ternary matrices.
    pub async fn weights(&mut self, name: &str) -> Result<Weights> {
        let unknown = || error(Error::usage(format!("{name} is no ternary matrix of the model")));
        let weight = self.matrices().find(|weight| weight.name == name).ok_or_else(unknown)?;
        let (Form::Ternary { group }, Some(latent)) = (weight.form, weight.latent) else { return Err(unknown()) };
        let (outs, dim) = weight.matrix();
        let latent: Vec<f32> = self.session.trainer.program.fetch(latent).await.map_err(error)?;
        let ternary = Ternary::quantize(&latent, outs, dim, group);
        let codes = (0..outs * dim).map(|i| ternary.code(i / dim, i % dim)).collect();
        let mut histogram = vec![0; BINS];
        for (group, scale) in latent.chunks(group).zip(&ternary.scales) {
            for w in group {
                let place = (w / scale / SPAN + 1.0) / 2.0 * BINS as f32;
                histogram[(place as usize).min(BINS - 1)] += 1;
            }
        }
        Ok(Weights { outs, dim, codes, histogram })
    }

    /// The model as it stands, ready to answer. It has memory of its own, and does not train on.
    pub async fn model(&mut self) -> Result<Model> {
        let file = self.session.model_file().await.map_err(error)?;
        let options = EngineOptions { slots: 1, context: 0 };
        let mut engine = Engine::new(&file, &self.backend, options).map_err(error)?;
        engine.ready().await.map_err(error)?;
        Model::new(engine, &file.text, file.vocab, file.param_count(), &self.backend)
    }

    /// The files of the model as it stands, which the native program reads too.
    pub async fn export(&mut self) -> Result<Export> {
        let file = self.session.model_file().await.map_err(error)?;
        let gguf = gguf::Layout::new(&file, Format::Q1_58).map_err(error)?.to_vec();
        Ok(Export { gguf, mhc: file.mhc().map(|mhc| mhc.to_bytes()) })
    }
}
