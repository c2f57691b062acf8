//! Training without files: a trainer, and the data in the order that the configuration and the seed fix. A run adds
//! checkpoints and logs, a browser adds a page.

use super::config::{Config, MAX_VALUES};
use super::step::{StepShape, TrainStep};
use super::trainer::{Batch, Trainer};
use crate::backend::Backend;
use crate::data::Corpus;
use crate::data::sampler::{self, Sampler};
use crate::formats::{ModelFile, TextConfig};
use crate::model::LEAST_CHUNK;
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
    /// How ids are spelled, if the model that training goes on from said it.
    pub text: Option<TextConfig>,
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
    /// Checks that the vocabulary is possible, that training and validation data each fill a window, and that documents can
    /// be told apart if they are to be separated.
    ///
    /// # Errors
    /// [`Error::Usage`] with both numbers of values or tokens, or with the key `data.separate_documents`.
    pub fn check(config: &Config, corpus: &Corpus) -> Result<Sampler> {
        let (vocab, wide) = (corpus.vocab_size as u64, config.model.dim.max(LEAST_CHUNK) as u64);
        if vocab.saturating_mul(wide) > MAX_VALUES {
            let most = MAX_VALUES / wide;
            let what = format!("a vocabulary of {vocab}: at most {most} are possible with dim = {}", config.model.dim);
            return Err(Error::usage(what));
        }
        document_end(config, corpus)?;
        let (seq, have) = (config.seq_len(), corpus.val.len());
        let sampler = Sampler::new(corpus.train.len(), seq, config.train.seed)?;
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
        let sampler = Session::check(&config, &corpus)?;
        let document_end = document_end(&config, &corpus)?;
        let step = TrainStep::build(&config.model, corpus.vocab_size, StepShape::of(&config), &config.optim);
        let mut trainer = Trainer::new(step, backend)?;
        trainer.init(config.train.seed);
        Ok(Session { config, corpus, trainer, sampler, text: None, document_end, step: 0, cursor: 0, tokens: 0 })
    }

    /// Submits the next step. Does not wait for a GPU.
    ///
    /// # Errors
    /// When the device fails, or the data cannot be read.
    pub fn submit(&mut self) -> Result<()> {
        let shape = self.trainer.step.shape;
        let factor = self.config.optim.schedule(self.step, self.config.train.total_steps);
        let (cursor, end) = (self.cursor, self.document_end);
        let micro = (0..shape.accum).map(|i| {
            let starts = self.sampler.starts(cursor + (i * shape.batch) as u64, shape.batch);
            let (inputs, targets) = sampler::batch(&self.corpus.train, &starts, shape.seq)?;
            Ok(batch(inputs, targets, shape.seq, end))
        });
        self.trainer.try_submit(self.step, factor, micro)?;
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
    /// When the device fails, or the data cannot be read.
    pub async fn validate(&mut self) -> Result<f64> {
        Ok(self.validate_heads().await?[0])
    }

    /// [`Session::validate`], followed by the loss of each further head.
    ///
    /// # Errors
    /// As [`Session::validate`].
    pub async fn validate_heads(&mut self) -> Result<Vec<f64>> {
        let (shape, val) = (self.trainer.step.shape, &self.corpus.val);
        let windows = sampler::eval_windows(val.len(), shape.seq, self.config.train.eval_windows);
        let batches = windows.chunks(shape.batch).map(|starts| {
            let (mut inputs, mut targets) = sampler::batch(val, starts, shape.seq)?;
            inputs.resize(shape.rows(), 0);
            targets.resize(shape.rows(), IGNORE);
            Ok(batch(inputs, targets, shape.seq, self.document_end))
        });
        self.trainer.try_fetch_losses(batches).await
    }

    /// The model in its present state, as it would be served.
    ///
    /// # Errors
    /// When the device fails, or a parameter is not finite.
    pub async fn model_file(&mut self) -> Result<ModelFile> {
        let text =
            self.text.clone().or_else(|| self.corpus.tokenizer.as_ref().map(TextConfig::new)).unwrap_or_default();
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
    if !config.data.separate_documents {
        return Ok(None);
    }
    if let Some(end) = corpus.tokenizer.as_ref().and_then(Tokenizer::eos) {
        for block in corpus.train.blocks(0..corpus.train.len()) {
            if block?.1.contains(&end) {
                return Ok(Some(end));
            }
        }
    }
    let name = &corpus.name;
    Err(Error::usage(format!("data.separate_documents: in {name} no token is known to end a document")))
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::backend::{Cpu, Level};
    use crate::data::Tokens;
    use crate::model::ModelConfig;
    use crate::tokenizer::EOS;

    fn corpus(end: &str) -> Corpus {
        let text: String = (0..60).map(|i| format!("{} is {i}{end}", "a number ".repeat(i % 3))).collect();
        Corpus::from_text("numbers", &text, &text[..text.len() / 2], Tokenizer::bytes()).unwrap()
    }

    fn config(separate_documents: bool) -> Config {
        let mut config = Config { model: ModelConfig::self_test(), ..Config::default() };
        config.train.batch_size = 2;
        config.data.separate_documents = separate_documents;
        config
    }

    /// The losses before training are those of these very batches, with documents separated or not.
    #[test]
    fn training_and_validation_separate_documents_if_told_to() {
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        let losses = [false, true].map(|separate| {
            let mut session = Session::new(config(separate), corpus(EOS), &backend).unwrap();
            let seq = session.config.model.seq_len;
            let end = separate.then(|| session.corpus.tokenizer.as_ref().unwrap().eos().unwrap());
            let mut expected = |tokens: &Tokens, starts: &[usize]| {
                let batches = starts.chunks(2).map(|starts| {
                    let (mut inputs, mut targets) = sampler::batch(tokens, starts, seq).unwrap();
                    inputs.resize(2 * seq, 0);
                    targets.resize(2 * seq, IGNORE);
                    batch(inputs, targets, seq, end)
                });
                session.trainer.evaluate(batches).unwrap()
            };
            let Corpus { train, val, .. } = corpus(EOS);
            let windows = sampler::eval_windows(val.len(), seq, usize::MAX);
            let starts = session.sampler.starts(0, 2);
            let want = [expected(&val, &windows), expected(&train, &starts)];
            let validated = pollster::block_on(session.validate()).unwrap();
            session.submit().unwrap();
            let trained = f64::from(session.trainer.stats(0..1).unwrap()[0].loss);
            let near = (trained - want[1]).abs() < 2e-6 * trained;
            assert!(validated == want[0] && near, "{validated} and {trained}, not {want:?}");
            want
        });
        assert!((0..2).all(|i| (losses[0][i] - losses[1][i]).abs() > 1e-4 * losses[0][i]), "{losses:?}");
    }

    #[test]
    fn micro_batches_read_different_windows() {
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(1)).unwrap());
        let losses = [(4, 1), (2, 2), (1, 4)].map(|(batch, accum)| {
            let mut config = config(false);
            (config.train.batch_size, config.train.grad_accum) = (batch, accum);
            let mut session = Session::new(config, corpus("\n"), &backend).unwrap();
            session.submit().unwrap();
            assert_eq!(session.cursor, 4);
            session.trainer.stats(0..1).unwrap()[0].loss
        });
        assert!(losses.iter().all(|loss| (loss - losses[0]).abs() < 2e-6 * losses[0]), "{losses:?}");
    }

    #[test]
    fn documents_that_cannot_be_told_apart_are_refused() {
        let without = Corpus { tokenizer: None, ..corpus(EOS) };
        for (separate, corpus, good) in [
            (true, corpus(EOS), true),
            (true, corpus("\n"), false),
            (true, without.clone(), false),
            (false, without, true),
        ] {
            let error = Session::check(&config(separate), &corpus).err().map(|e| e.to_string());
            let named = |e: &String| e.contains("data.separate_documents") && e.contains("numbers");
            assert!(if good { error.is_none() } else { error.as_ref().is_some_and(named) }, "{error:?}");
        }
    }

    #[test]
    fn positions_start_again_behind_each_end() {
        let batch = |inputs: &[u32]| Batch::new(inputs.to_vec(), vec![0; inputs.len()], 6);
        let ids = [1, 9, 2, 3, 9, 9, 4, 9, 9, 5, 6, 7];
        assert_eq!(batch(&ids).positions, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
        assert_eq!(batch(&ids).separate(9).positions, [0, 1, 0, 1, 2, 0, 0, 1, 0, 0, 1, 2]);
    }
}
