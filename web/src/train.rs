//! Training in the page: the same session as a native run. The caller runs its steps.

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
use serde_json::json;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// Number of bins of a histogram of weights, from -3 to 3 scales.
const BINS: usize = 96;
const SPAN: f32 = 3.0;

/// A model in training.
#[wasm_bindgen]
pub struct TrainSession {
    backend: Rc<Backend>,
    session: Session,
    /// Number of steps whose statistics were read.
    read: u64,
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** Sections and keys of a configuration file. Keys that are absent are as in the `tiny` preset. */
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

/** Losses are in nats per token. The loss of a step is null if it was NaN; such a step is skipped. */
export interface StepStats { step: number; loss: number | null; grad_norm: number; skipped: boolean; }
"#;

/// A copy of a matrix.
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

    /// The weights (outs, dim): -1, 0 or 1.
    #[wasm_bindgen(getter)]
    pub fn codes(&self) -> Vec<i8> {
        self.codes.clone()
    }

    /// The number of latent weights in each of 96 equal bins from -3 to 3 times their scale. The outermost bins count
    /// those beyond, too.
    #[wasm_bindgen(getter)]
    pub fn histogram(&self) -> Vec<u32> {
        self.histogram.clone()
    }
}

/// The files of a trained model.
#[wasm_bindgen]
pub struct Export {
    gguf: Vec<u8>,
    mhc: Option<Vec<u8>>,
}

#[wasm_bindgen]
impl Export {
    /// The file of the whole model.
    #[wasm_bindgen(getter)]
    pub fn gguf(&self) -> Vec<u8> {
        self.gguf.clone()
    }

    /// The file of the residual mixing alone, if the model has several streams.
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
        object(&json!({
            "parameters": step.model.param_count(),
            "vocabulary": corpus.vocab_size,
            "training_tokens": corpus.train.len(),
            "validation_tokens": corpus.val.len(),
            "tokens_per_step": step.shape.tokens(),
            "total_steps": config.train.total_steps,
            "device_bytes": step.plan.bytes(),
            "matrices": self.matrices().map(|weight| &weight.name).collect::<Vec<_>>(),
            "config": config,
        }))
    }

    /// Trains `n` steps, or those that are left. Returns their statistics.
    #[wasm_bindgen(unchecked_return_type = "StepStats[]")]
    pub async fn step(&mut self, n: u32) -> Result<JsValue> {
        let last = self.session.config.train.total_steps.min(self.session.step + u64::from(n.clamp(1, 64)));
        while self.session.step < last {
            self.session.submit().map_err(error)?;
        }
        let stats = self.session.trainer.fetch_stats(self.read..last).await.map_err(error)?;
        let steps = self.read + 1..;
        self.read = last;
        // JSON has no NaN: such a loss becomes null.
        let plain = steps
            .zip(stats)
            .map(|(step, s)| json!({ "step": step, "loss": s.loss, "grad_norm": s.grad_norm, "skipped": s.skipped }));
        Ok(object(&plain.collect::<Vec<_>>()))
    }

    /// The loss on the validation text, in nats per token.
    pub async fn validate(&mut self) -> Result<f64> {
        self.session.validate().await.map_err(error)
    }

    /// Copies one of the ternary matrices.
    pub async fn weights(&mut self, name: &str) -> Result<Weights> {
        let unknown = || error(Error::usage(format!("{name} is not a ternary matrix of the model")));
        let weight = self.matrices().find(|weight| weight.name == name).ok_or_else(unknown)?;
        let (Form::Ternary { group, scales }, Some(latent)) = (weight.form, weight.latent) else {
            return Err(unknown());
        };
        let (outs, dim) = weight.matrix();
        let latent: Vec<f32> = self.session.trainer.program.fetch(latent).await.map_err(error)?;
        let ternary = Ternary::quantize(&latent, (outs, dim), group, scales);
        let codes = (0..outs * dim).map(|i| ternary.code(i / dim, i % dim)).collect();
        let mut histogram = vec![0; BINS];
        for (i, group) in latent.chunks(group).enumerate() {
            let scale = ternary.scale(i);
            for w in group {
                let place = (w / scale / SPAN + 1.0) / 2.0 * BINS as f32;
                histogram[(place as usize).min(BINS - 1)] += 1;
            }
        }
        Ok(Weights { outs, dim, codes, histogram })
    }

    /// Copies the model as it is now, ready to answer. The copy has its own memory.
    pub async fn model(&mut self) -> Result<Model> {
        let file = self.session.model_file().await.map_err(error)?;
        let options = EngineOptions { slots: 1, context: 0 };
        let mut engine = Engine::new(&file, &self.backend, options).map_err(error)?;
        engine.ready().await.map_err(error)?;
        Model::new(engine, &file.text, file.vocab, file.param_count(), &self.backend)
    }

    /// The files of the model as it is now. The native program reads them too.
    pub async fn export(&mut self) -> Result<Export> {
        let file = self.session.model_file().await.map_err(error)?;
        let gguf = gguf::Layout::new(&file, Format::Q1_58).map_err(error)?.to_vec();
        Ok(Export { gguf, mhc: file.mhc().map(|mhc| mhc.to_bytes()) })
    }
}
