//! A training run: data, steps, evaluations, checkpoints and logs. A run stops at a signal and can be resumed there.

use super::config::Config;
use super::folder::{Folder, Start, write_config};
use super::metrics::{EvalRecord, MetricsWriter, StepRecord, read_losses};
use super::peak::utilisation;
use super::plot::{self, loss_svg};
use super::progress::{Progress, Status};
use super::resume::{self, Sums};
use super::session::Session;
use super::signals::Signals;
use super::tensorboard::EventWriter;
use super::trainer::StepStats;
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint, Meta};
use crate::data::Corpus;
use crate::error::mib;
use crate::files::write_within;
use crate::ops::STATS_RING;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Consecutive skipped steps after which the run is rolled back to the newest checkpoint.
const SKIPS_BEFORE_ROLLBACK: u64 = 8;
/// Most rollbacks of a run; at the next one it fails.
const MAX_ROLLBACKS: u64 = 3;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Completed steps.
    pub step: u64,
    /// Mean loss of the steps read last, in nats per token.
    pub train_loss: f64,
    /// Validation loss in nats per token, if it was evaluated.
    pub val_loss: Option<f64>,
    /// The directory of the last checkpoint.
    pub checkpoint: PathBuf,
    /// The signal that stopped the run early, if any.
    pub signal: Option<i32>,
}

/// A run in progress.
pub struct Run {
    session: Session,
    dir: PathBuf,
    /// Checksums of the data: a resumed run must train on the same tokens.
    sums: Sums,
    /// What computes, as far as results depend on it.
    device: String,
    /// The most operations per second that this device reached, in a matrix product of floats or in this run.
    peak_flops: Option<f64>,
    /// Opened when training starts.
    logs: Option<Logs>,
    progress: Progress,
    signals: Signals,
    state: State,
    /// The checkpoint that the run goes on from.
    from: Option<PathBuf>,
    /// The weights are those of another run, of which nothing is saved here yet.
    forked: bool,
    /// Steps whose statistics were read.
    read: u64,
    folder: Folder,
}

/// The run's own state in a checkpoint.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    skipped: u64,
    skipped_in_a_row: u64,
    rollbacks: u64,
    train_loss: f64,
    val_loss: Option<f64>,
}

struct Logs {
    metrics: MetricsWriter,
    events: EventWriter,
}

impl Logs {
    /// Opens the logs of a run that starts, or goes on after the step `resumed`.
    fn open(dir: &Path, resumed: Option<u64>) -> Result<Logs> {
        Ok(Logs { metrics: MetricsWriter::open(dir, resumed)?, events: EventWriter::create(dir, resumed)? })
    }
}

impl Run {
    /// Prepares a run. Nothing but the lock is written before [`Run::train`].
    ///
    /// # Errors
    /// When the configuration or the corpus is invalid; the folder is locked, belongs to something else, or contains a run that
    /// is not to be resumed; the checkpoint does not match configuration and corpus; or the device or a file fails.
    pub fn new(config: Config, corpus: Corpus, start: Start, backend: &Backend) -> Result<Run> {
        Session::check(&config, &corpus)?;
        let folder = start.open()?;
        let dir = folder.path().to_path_buf();
        let here = checkpoint::newest_valid(&dir)?;
        let saved = match start {
            Start::Resume(_) => here,
            _ if here.is_some() => {
                let dir = dir.display();
                return Err(Error::usage(format!(
                    "{dir} already contains a run: add --resume, or choose another directory"
                )));
            }
            Start::Fork { from, .. } => {
                let none = || Error::usage(format!("--fork: {} has no checkpoint", from.display()));
                Some(checkpoint::newest_valid(from)?.ok_or_else(none)?)
            }
            Start::Within(_) | Start::New(_) => None,
        };
        let forked = matches!(start, Start::Fork { .. });
        let (sums, device) = (Sums::new(&corpus)?, identity(backend));
        let mut said = Vec::new();
        if let Some((saved, warnings)) = &saved {
            said.extend_from_slice(warnings);
            let what = if forked { "a new run from the weights of" } else { "resumed from" };
            said.push(format!("{what} {} (step {})", saved.dir.display(), saved.meta.step));
            if !forked {
                said.extend(resume::check(saved, &config, &corpus, &sums)?);
                let before = saved.meta.state["device"].as_str().filter(|before| *before != device);
                said.extend(before.map(|b| format!("steps so far ran on {b}; on {device} they may round differently")));
            } else {
                said.extend(resume::fork(&Config::saved(saved)?, &config)?);
                if saved.meta.tokenizer_hash != corpus.tokenizer.as_ref().map(|t| t.hash()) {
                    said.push(format!(
                        "warning: they were trained with another tokenizer than that of {}",
                        corpus.name
                    ));
                }
            }
        } else if dir.join("config.toml").exists() {
            said.push(format!("{} has no checkpoint: the run starts over at step 0", dir.display()));
        }
        let mut session = Session::new(config, corpus, backend)?;
        session.trainer.program.stop_if(Signals::arrived);
        let mut state = State::default();
        match &saved {
            Some((saved, _)) if forked => session.trainer.load_model(&saved.model)?,
            Some((saved, _)) => state = restore(&mut session, saved)?,
            None => {}
        }
        let run = Run {
            sums,
            device,
            peak_flops: None,
            logs: None,
            progress: Progress::new(session.config.train.total_steps, session.step),
            signals: Signals::install(),
            state,
            from: saved.map(|(saved, _)| saved.dir).filter(|_| !forked),
            forked,
            read: session.step,
            dir,
            session,
            folder,
        };
        said.iter().for_each(|line| run.progress.message(line));
        Ok(run)
    }

    /// The folder of the run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One paragraph about the run, for the terminal.
    pub fn describe(&self) -> String {
        let Session { config, corpus, trainer, .. } = &self.session;
        let step = &trainer.step;
        let count = step.model.param_count();
        let tokens = corpus.train.len();
        let windows = self.session.windows();
        let epochs = config.train.total_steps as f64 * step.shape.tokens() as f64
            / (windows as f64 * config.model.seq_len as f64);
        format!(
            "model    {count} parameters, vocabulary {}, {:.1} MiB of memory on the device\n\
             data     {}: {tokens} training tokens, {} for validation; {epochs:.1} epochs\n\
             step     {} tokens, {} ops a micro-batch\n\
             run      {}",
            corpus.vocab_size,
            mib(step.plan.bytes() as u64),
            corpus.name,
            corpus.val.len(),
            step.shape.tokens(),
            step.sections.micro.nodes().len(),
            self.dir.display(),
        )
    }

    /// Sets the operations per second to which model FLOP utilisation is relative. Faster steps raise them.
    pub fn set_peak(&mut self, flops: f64) {
        self.peak_flops = Some(flops);
    }

    /// Trains until the last step or a signal. In both cases it leaves a checkpoint and a plot. A signal ends a step or an
    /// evaluation in progress, which a resumed run repeats. A run that is complete already stays as it is.
    ///
    /// # Errors
    /// When the device or a file fails, or too many steps had to be skipped.
    pub fn train(&mut self) -> Result<Outcome> {
        let (step, total) = (self.session.step, self.session.config.train.total_steps);
        if let Some(fin) = self.from.clone().filter(|dir| step == total && dir.ends_with("final"))
            && self.recorded()?.is_some()
        {
            self.progress
                .message(&format!("nothing to do: all {total} steps are done; a larger --total-steps goes on"));
            return Ok(self.outcome(fin));
        }
        write_config(&self.session.config, &self.dir)?;
        self.logs()?;
        if self.forked {
            self.save(&checkpoint::step_name(step))?;
        }
        match self.steps() {
            Err(Error::Stopped) => {}
            ended => ended?,
        }
        let unread = self.session.trainer.stats(self.read..self.session.step)?;
        self.take_stats(&unread);
        self.finish()
    }

    fn steps(&mut self) -> Result<()> {
        let total = self.session.config.train.total_steps;
        let due = |interval: u64, step: u64| interval != 0 && step != 0 && step.is_multiple_of(interval);
        let at = self.session.step;
        // An evaluation that a signal ended.
        if due(self.session.config.train.eval_interval, at) && at != total && self.recorded()?.is_none() {
            self.evaluate()?;
        }
        let mut since = Instant::now();
        let mut logged = at;
        while self.session.step < total && self.signals.pending().is_none() {
            self.session.submit()?;
            let step = self.session.step;
            let due = |interval: u64| due(interval, step);
            let log = due(self.session.config.train.log_interval) || step == total || step == 1;
            let full = step - self.read >= STATS_RING as u64 / 2;
            if log || full || due(self.session.config.train.checkpoint_interval) {
                self.folder.check()?;
                let stats = self.session.trainer.stats(self.read..step)?;
                self.take_stats(&stats);
                self.read = step;
                if log {
                    let seconds = since.elapsed().as_secs_f64();
                    self.log(&stats, (step - logged) as f64 / seconds.max(1e-9))?;
                    (since, logged) = (Instant::now(), step);
                }
                if self.state.skipped_in_a_row >= SKIPS_BEFORE_ROLLBACK {
                    self.roll_back()?;
                    (self.read, logged) = (self.session.step, self.session.step);
                    continue;
                }
            }
            self.progress.advance(step);
            let pause = Instant::now();
            // Before saving, so that a run resumed from this checkpoint has all records up to it.
            if due(self.session.config.train.eval_interval) && step != total {
                self.evaluate()?;
            }
            if due(self.session.config.train.checkpoint_interval) && step != total {
                self.save(&checkpoint::step_name(step))?;
                checkpoint::prune(&self.dir, self.session.config.train.keep_last_checkpoints)?;
            }
            since += pause.elapsed();
        }
        Ok(())
    }

    /// The validation loss that the log has for the present step.
    fn recorded(&self) -> Result<Option<f64>> {
        let last = read_losses(&self.dir)?.val.pop();
        Ok(last.filter(|(step, _)| *step == self.session.step).map(|(_, loss)| loss))
    }

    fn finish(&mut self) -> Result<Outcome> {
        self.folder.check()?;
        let done = self.session.step == self.session.config.train.total_steps;
        let name = if done { "final".to_string() } else { checkpoint::step_name(self.session.step) };
        if done {
            checkpoint::keep_final(&self.dir, self.session.step)?;
        }
        let mut saved = self.save(&name)?;
        if done {
            let loss = match self.recorded()? {
                Some(loss) => Ok(loss),
                None => self.evaluate(),
            };
            match loss {
                Err(Error::Stopped) => {}
                loss => {
                    self.state.val_loss = Some(loss?);
                    saved = self.save(&name)?;
                }
            }
        }
        self.write_plot()?;
        self.progress.finish();
        Ok(self.outcome(saved))
    }

    fn outcome(&self, checkpoint: PathBuf) -> Outcome {
        let State { train_loss, val_loss, .. } = self.state;
        Outcome { step: self.session.step, train_loss, val_loss, checkpoint, signal: self.signals.pending() }
    }

    fn logs(&mut self) -> Result<&mut Logs> {
        if self.logs.is_none() {
            let resumed = self.from.as_ref().map(|_| self.session.step);
            self.logs = Some(Logs::open(&self.dir, resumed)?);
        }
        Ok(self.logs.as_mut().expect("just opened"))
    }

    fn take_stats(&mut self, stats: &[StepStats]) {
        for s in stats {
            if s.skipped {
                self.state.skipped += 1;
                self.state.skipped_in_a_row += 1;
                let (loss, norm) = (s.loss, s.grad_norm);
                self.progress.message(&format!("a step was skipped: loss {loss}, gradient norm {norm}"));
            } else {
                self.state.skipped_in_a_row = 0;
            }
        }
        let good: Vec<f64> = stats.iter().filter(|s| !s.skipped).map(|s| f64::from(s.loss)).collect();
        if !good.is_empty() {
            self.state.train_loss = good.iter().sum::<f64>() / good.len() as f64;
        }
    }

    fn log(&mut self, stats: &[StepStats], steps_per_s: f64) -> Result<()> {
        let last = stats.last().expect("a logged step has statistics");
        let shape = self.session.trainer.step.shape;
        let step = self.session.step;
        let lr = self.session.config.optim.schedule(step - 1, self.session.config.train.total_steps)
            * f64::from(self.session.config.optim.muon_lr);
        let tok_per_s = steps_per_s * shape.tokens() as f64;
        let (loss, grad_norm) = (f64::from(last.loss), f64::from(last.grad_norm));
        let tokens = self.session.tokens;
        let logs = self.logs()?;
        logs.metrics.step(&StepRecord { step, tokens, loss, lr, grad_norm, tok_per_s, skipped: last.skipped })?;
        let scalars = [
            ("train/loss", last.loss),
            ("train/lr", lr as f32),
            ("train/grad_norm", last.grad_norm),
            ("train/tok_per_s", tok_per_s as f32),
        ];
        logs.events.scalars(step, &scalars)?;
        logs.events.flush()?;
        let flops = steps_per_s * self.session.trainer.step.model_flops as f64;
        let mfu = self.peak_flops.as_mut().and_then(|peak| utilisation(peak, flops));
        self.progress.log(&Status { step, loss: self.state.train_loss, lr, tok_per_s, mfu });
        Ok(())
    }

    /// Evaluates and logs the loss of the validation tokens, in nats per token.
    ///
    /// # Errors
    /// When the device or a file fails.
    pub fn evaluate(&mut self) -> Result<f64> {
        let val_loss = pollster::block_on(self.session.validate())?;
        let corpus = &self.session.corpus;
        let bytes_per_token = corpus.val_bytes.map(|bytes| bytes as f64 / corpus.val.len() as f64);
        let bits = bytes_per_token.map(|bytes| val_loss / std::f64::consts::LN_2 / bytes);
        let (step, tokens) = (self.session.step, self.session.tokens);
        let logs = self.logs()?;
        logs.metrics.eval(&EvalRecord { step, tokens, val_loss, val_bits_per_byte: bits })?;
        logs.events.scalars(step, &[("val/loss", val_loss as f32)])?;
        if let Some(bits) = bits {
            logs.events.scalars(step, &[("val/bits_per_byte", bits as f32)])?;
        }
        logs.events.flush()?;
        self.progress.message(&format!("step {step}: {}", validation(val_loss, bits)));
        self.state.val_loss = Some(val_loss);
        Ok(val_loss)
    }

    fn save(&mut self, name: &str) -> Result<PathBuf> {
        let (s, step) = (self.state, self.session.step);
        let meta = Meta {
            step,
            tokens: self.session.tokens,
            config: serde_json::to_value(&self.session.config).map_err(|e| Error::usage(e.to_string()))?,
            train_loss: s.train_loss.is_finite().then_some(s.train_loss),
            val_loss: s.val_loss,
            data_cursor: self.session.cursor,
            seed: self.session.config.train.seed,
            skipped_steps: s.skipped,
            tokenizer_hash: self.session.corpus.tokenizer.as_ref().map(|t| t.hash()),
            state: serde_json::json!({
                "skipped_in_a_row": s.skipped_in_a_row,
                "rollbacks": s.rollbacks,
                "data_crc32c": self.sums.train,
                "val_crc32c": self.sums.val,
                "device": self.device,
            }),
            ..Meta::default()
        };
        let (model, optimizer) = (self.session.trainer.model_tensors()?, self.session.trainer.optimizer_tensors()?);
        let tokenizer = self.session.corpus.tokenizer.as_ref().map(|t| t.to_json());
        checkpoint::save(&self.dir, name, &meta, &model, &optimizer, tokenizer.as_deref())
    }

    /// Restores the newest checkpoint, but continues with the next data.
    fn roll_back(&mut self) -> Result<()> {
        let (skipped, rollbacks, cursor) = (self.state.skipped, self.state.rollbacks + 1, self.session.cursor);
        let give_up = |why: &str| {
            let text =
                format!("{SKIPS_BEFORE_ROLLBACK} steps in a row had a loss or gradient that cannot be used; {why}");
            Err(Error::Training(text))
        };
        if rollbacks > MAX_ROLLBACKS {
            return give_up("the run was rolled back three times before: lower the learning rates");
        }
        let Some((saved, _)) = checkpoint::newest_valid(&self.dir)? else {
            return give_up("there is no checkpoint to roll back to: lower the learning rates");
        };
        let state = restore(&mut self.session, &saved)?;
        self.session.cursor = cursor;
        self.state = State { skipped, rollbacks, skipped_in_a_row: 0, ..state };
        self.logs = Some(Logs::open(&self.dir, Some(self.session.step))?);
        self.progress.message(&format!("rolled back to {} (step {})", saved.dir.display(), saved.meta.step));
        Ok(())
    }

    fn write_plot(&self) -> Result<()> {
        let losses = read_losses(&self.dir)?;
        let path = self.dir.join(plot::FILE_NAME);
        let title = self.dir.file_name().map_or("loss".into(), |n| n.to_string_lossy());
        write_within(&path, loss_svg(&losses.train, &losses.val, &title).as_bytes())
    }
}

/// A validation loss in words.
fn validation(loss: f64, bits_per_byte: Option<f64>) -> String {
    if !loss.is_finite() {
        return "the validation loss is not a finite number: the model overflows on the validation text".to_string();
    }
    let bits = bits_per_byte.map_or(String::new(), |b| format!(", {b:.3} bits/byte"));
    format!("validation loss {loss:.4} nats/token{bits}")
}

/// The device, without what results do not depend on.
fn identity(backend: &Backend) -> String {
    match backend {
        Backend::Cpu(cpu) => format!("cpu ({})", cpu.level()),
        other => other.describe(),
    }
}

/// Loads a checkpoint into a session.
fn restore(session: &mut Session, saved: &Checkpoint) -> Result<State> {
    session.trainer.load(&saved.model, &saved.optimizer)?;
    let meta = &saved.meta;
    (session.step, session.cursor, session.tokens) = (meta.step, meta.data_cursor, meta.tokens);
    let number = |key: &str| meta.state[key].as_u64().unwrap_or(0);
    Ok(State {
        skipped: meta.skipped_steps,
        skipped_in_a_row: number("skipped_in_a_row"),
        rollbacks: number("rollbacks"),
        train_loss: meta.train_loss.unwrap_or(f64::NAN),
        val_loss: meta.val_loss,
    })
}

#[cfg(test)]
mod kept;

#[cfg(test)]
mod tests {
    use super::validation;

    #[test]
    fn a_validation_loss_that_is_no_number_is_said_in_words() {
        assert_eq!(validation(1.0, None), "validation loss 1.0000 nats/token");
        assert_eq!(validation(1.0, Some(2.0)), "validation loss 1.0000 nats/token, 2.000 bits/byte");
        for loss in [f64::NAN, f64::INFINITY] {
            let text = validation(loss, Some(loss));
            assert!(text.contains("not a finite number") && !text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
