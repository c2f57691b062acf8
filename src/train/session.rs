//! Training without files: a trainer, and the data in the order that the configuration and the seed fix. A run adds
//! checkpoints and logs, a browser adds a page.

use super::config::Config;
use super::step::{StepShape, TrainStep};
use super::trainer::{Batch, Trainer};
use crate::backend::Backend;
use crate::data::Corpus;
use crate::data::sampler::{self, Sampler};
use crate::formats::{ModelFile, TextConfig};
use crate::ops::IGNORE;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A model in training, with its data.
pub struct Session {
    /// The configuration that it was made from.
    pub config: Config,
    /// The data.
    pub corpus: Corpus,
    /// The step on a device.
    pub trainer: Trainer,
    sampler: Sampler,
    /// The token behind which positions start again, if documents are separated.
    document_end: Option<u32>,
    /// Steps submitted so far.
    pub step: u64,
    /// Samples drawn so far.
    pub cursor: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
}

impl Session {
    /// Checks that training and validation data each fill a window, in this order, and that documents can be told apart if
    /// they are to be separated.
    ///
    /// # Errors
    /// [`Error::Usage`] with both numbers of tokens, or with the key `data.separate_documents`.
    pub fn check(config: &Config, corpus: &Corpus) -> Result<Sampler> {
        document_end(config, corpus)?;
        let (seq, have) = (config.model.seq_len, corpus.val.as_slice().len());
        let sampler = Sampler::new(corpus.train.as_slice().len(), seq, config.train.seed)?;
        if have > seq {
            return Ok(sampler);
        }
        let want = seq + 1;
        Err(Error::usage(format!("{have} validation tokens are fewer than one window of seq_len + 1 = {want}")))
    }

    /// Prepares a checked configuration with its initial weights.
    ///
    /// # Errors
    /// When the data do not fill a window, or the device refuses.
    pub fn new(config: Config, corpus: Corpus, backend: &Backend) -> Result<Session> {
        let shape = StepShape {
            batch: config.train.batch_size,
            seq: config.model.seq_len,
            accum: config.train.grad_accum,
            recompute: config.train.recompute,
        };
        let sampler = Session::check(&config, &corpus)?;
        let document_end = document_end(&config, &corpus)?;
        let step = TrainStep::build(&config.model, corpus.vocab_size, shape, &config.optim);
        let mut trainer = Trainer::new(step, backend)?;
        trainer.init(config.train.seed);
        Ok(Session { config, corpus, trainer, sampler, document_end, step: 0, cursor: 0, tokens: 0 })
    }

    /// Submits the next step. Does not wait for a GPU.
    ///
    /// # Errors
    /// When the device fails.
    pub fn submit(&mut self) -> Result<()> {
        let shape = self.trainer.step.shape;
        let factor = self.config.optim.schedule(self.step, self.config.train.total_steps);
        let (cursor, end) = (self.cursor, self.document_end);
        let micro = (0..shape.accum).map(|i| {
            let starts = self.sampler.starts(cursor + (i * shape.batch) as u64, shape.batch);
            let (inputs, targets) = sampler::batch(self.corpus.train.as_slice(), &starts, shape.seq);
            batch(inputs, targets, shape.seq, end)
        });
        self.trainer.submit(self.step, factor, micro)?;
        self.cursor += (shape.batch * shape.accum) as u64;
        self.tokens += shape.tokens() as u64;
        self.step += 1;
        Ok(())
    }

    /// Training windows in an epoch.
    pub fn windows(&self) -> u64 {
        self.sampler.windows()
    }

    /// Loss of the validation split, in nats per token. Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn validate(&mut self) -> Result<f64> {
        let (shape, val) = (self.trainer.step.shape, self.corpus.val.as_slice());
        let windows = sampler::eval_windows(val.len(), shape.seq, self.config.train.eval_windows);
        let batches = windows.chunks(shape.batch).map(|starts| {
            let (mut inputs, mut targets) = sampler::batch(val, starts, shape.seq);
            inputs.resize(shape.rows(), 0);
            targets.resize(shape.rows(), IGNORE);
            batch(inputs, targets, shape.seq, self.document_end)
        });
        self.trainer.fetch_loss(batches).await
    }

    /// The model in its present state, as it would be served.
    ///
    /// # Errors
    /// When the device fails, or a parameter is not finite.
    pub async fn model_file(&mut self) -> Result<ModelFile> {
        let text = self.corpus.tokenizer.as_ref().map(TextConfig::new).unwrap_or_default();
        let latent = self.trainer.fetch_model().await?;
        ModelFile::from_latent(self.config.model.clone(), text, &latent).map_err(Error::Training)
    }
}

/// The windows of a batch, with documents separated behind each token `end`.
fn batch(inputs: Vec<u32>, targets: Vec<u32>, seq: usize, end: Option<u32>) -> Batch {
    let batch = Batch::new(inputs, targets, seq);
    match end {
        Some(end) => batch.separate(end),
        None => batch,
    }
}

/// The token that ends a document, if the configuration separates them.
fn document_end(config: &Config, corpus: &Corpus) -> Result<Option<u32>> {
    let end = corpus.tokenizer.as_ref().and_then(Tokenizer::eos);
    match (config.data.separate_documents, end) {
        (true, None) => Err(Error::usage(format!(
            "data.separate_documents: {} has no tokenizer with a token that ends a document",
            corpus.name
        ))),
        (wanted, end) => Ok(end.filter(|_| wanted)),
    }
}
