//! A training run: data, steps, evaluations, checkpoints and logs. A run stops at a signal and can be resumed there.

use super::config::Config;
use super::metrics::{EvalRecord, MetricsWriter, StepRecord, read_losses};
use super::peak::utilisation;
use super::plot::loss_svg;
use super::progress::{Progress, Status};
use super::session::Session;
use super::signals::Signals;
use super::tensorboard::EventWriter;
use super::trainer::StepStats;
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint, Meta, RunLock};
use crate::data::Corpus;
use crate::error::mib;
use crate::files::write_atomic;
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
    /// Checksum of the training tokens: a resumed run must use the same tokens.
    data_crc32c: u32,
    /// The most operations per second that this device reached, in a matrix product of floats or in this run.
    peak_flops: Option<f64>,
    metrics: MetricsWriter,
    events: EventWriter,
    progress: Progress,
    signals: Signals,
    state: State,
    _lock: RunLock,
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

impl Run {
    /// Prepares a run in `dir`. With `resume` it continues from the newest valid checkpoint there, if one exists. All checks
    /// run before any file of an earlier run is modified.
    ///
    /// # Errors
    /// When the configuration or the corpus is invalid, `dir` is locked or contains a run that is not to be resumed, the
    /// checkpoint does not match configuration and corpus, or the device or a file fails.
    pub fn new(config: Config, corpus: Corpus, dir: &Path, backend: &Backend, resume: bool) -> Result<Run> {
        Session::check(&config, &corpus)?;
        let lock = RunLock::acquire(dir)?;
        let saved = checkpoint::newest_valid(dir)?;
        if !resume && saved.is_some() {
            let dir = dir.display();
            return Err(Error::usage(format!(
                "{dir} already contains a run: add --resume, or choose another directory"
            )));
        }
        let data_crc32c = crc32c::crc32c(bytemuck::cast_slice(corpus.train.as_slice()));
        let mut session = Session::new(config, corpus, backend)?;
        let mut state = State::default();
        if let Some((saved, _)) = &saved {
            check_resumable(saved, &session.config, &session.corpus, data_crc32c)?;
            state = restore(&mut session, saved)?;
        }
        write_config(&session.config, dir)?;
        let resumed = saved.as_ref().map(|(saved, _)| saved.meta.step);
        let run = Run {
            data_crc32c,
            peak_flops: None,
            metrics: MetricsWriter::open(dir, resumed)?,
            events: EventWriter::create(dir, resumed)?,
            progress: Progress::new(session.config.train.total_steps, session.step),
            signals: Signals::install(),
            state,
            dir: dir.to_path_buf(),
            session,
            _lock: lock,
        };
        if let Some((saved, warnings)) = saved {
            warnings.iter().for_each(|w| run.progress.message(w));
            run.progress.message(&format!("resumed from {} (step {})", saved.dir.display(), saved.meta.step));
        }
        Ok(run)
    }

    /// One paragraph about the run, for the terminal.
    pub fn describe(&self) -> String {
        let Session { config, corpus, trainer, .. } = &self.session;
        let step = &trainer.step;
        let count = step.model.param_count();
        let tokens = corpus.train.as_slice().len();
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
            corpus.val.as_slice().len(),
            step.shape.tokens(),
            step.sections.micro.nodes().len(),
            self.dir.display(),
        )
    }

    /// Sets the operations per second to which model FLOP utilisation is relative. Faster steps raise them.
    pub fn set_peak(&mut self, flops: f64) {
        self.peak_flops = Some(flops);
    }

    /// Trains until the last step or a signal. In both cases it leaves a checkpoint and a plot.
    ///
    /// # Errors
    /// When the device or a file fails, or too many steps had to be skipped.
    pub fn train(&mut self) -> Result<Outcome> {
        let total = self.session.config.train.total_steps;
        let mut read = self.session.step;
        let mut since = Instant::now();
        let mut logged = self.session.step;
        while self.session.step < total && self.signals.pending().is_none() {
            self.session.submit()?;
            let step = self.session.step;
            let due = |interval: u64| interval != 0 && step.is_multiple_of(interval);
            let log = due(self.session.config.train.log_interval) || step == total || step == 1;
            if log || step - read >= STATS_RING as u64 / 2 || due(self.session.config.train.checkpoint_interval) {
                let stats = self.session.trainer.stats(read..step)?;
                self.take_stats(&stats);
                read = step;
                if log {
                    let seconds = since.elapsed().as_secs_f64();
                    self.log(&stats, (step - logged) as f64 / seconds.max(1e-9))?;
                    (since, logged) = (Instant::now(), step);
                }
                if self.state.skipped_in_a_row >= SKIPS_BEFORE_ROLLBACK {
                    self.roll_back()?;
                    (read, logged) = (self.session.step, self.session.step);
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
        let unread = self.session.trainer.stats(read..self.session.step)?;
        self.take_stats(&unread);
        self.finish()
    }

    fn finish(&mut self) -> Result<Outcome> {
        let signal = self.signals.pending();
        let done = self.session.step == self.session.config.train.total_steps;
        let name = if done { "final".to_string() } else { checkpoint::step_name(self.session.step) };
        let mut saved = self.save(&name)?;
        if done {
            // A completed run that is resumed may have been evaluated already.
            let recorded = read_losses(&self.dir)?.val.pop().filter(|(step, _)| *step == self.session.step);
            match recorded {
                Some((_, val_loss)) => self.state.val_loss = Some(val_loss),
                None => _ = self.evaluate()?,
            }
            saved = self.save(&name)?;
        }
        self.write_plot()?;
        self.progress.finish();
        let step = self.session.step;
        let State { train_loss, val_loss, .. } = self.state;
        Ok(Outcome { step, train_loss, val_loss, checkpoint: saved, signal })
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
        self.metrics.step(&StepRecord { step, tokens, loss, lr, grad_norm, tok_per_s, skipped: last.skipped })?;
        let scalars = [
            ("train/loss", last.loss),
            ("train/lr", lr as f32),
            ("train/grad_norm", last.grad_norm),
            ("train/tok_per_s", tok_per_s as f32),
        ];
        self.events.scalars(step, &scalars)?;
        self.events.flush()?;
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
        self.metrics.eval(&EvalRecord { step, tokens, val_loss, val_bits_per_byte: bits })?;
        self.events.scalars(step, &[("val/loss", val_loss as f32)])?;
        if let Some(bits) = bits {
            self.events.scalars(step, &[("val/bits_per_byte", bits as f32)])?;
        }
        self.events.flush()?;
        let bits = bits.map_or(String::new(), |b| format!(", {b:.3} bits/byte"));
        self.progress.message(&format!("step {step}: validation loss {val_loss:.4} nats/token{bits}"));
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
                "data_crc32c": self.data_crc32c,
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
        self.metrics = MetricsWriter::open(&self.dir, Some(self.session.step))?;
        self.events = EventWriter::create(&self.dir, Some(self.session.step))?;
        self.progress.message(&format!("rolled back to {} (step {})", saved.dir.display(), saved.meta.step));
        Ok(())
    }

    fn write_plot(&self) -> Result<()> {
        let losses = read_losses(&self.dir)?;
        let path = self.dir.join("loss.svg");
        let title = self.dir.file_name().map_or("loss".into(), |n| n.to_string_lossy());
        write_atomic(&path, loss_svg(&losses.train, &losses.val, &title).as_bytes())
    }
}

/// Rejects a checkpoint that does not fit: other data, tokenizer or seed, or more steps than `total_steps`. Batch size,
/// schedule and learning rates may differ; the rest of the run uses the new ones.
fn check_resumable(saved: &Checkpoint, config: &Config, corpus: &Corpus, data_crc32c: u32) -> Result<()> {
    let (dir, meta) = (saved.dir.display(), &saved.meta);
    let fail = |what: String| Err(Error::Usage(what));
    if config.train.total_steps < meta.step {
        let total = config.train.total_steps;
        return fail(format!("total_steps = {total}, but {dir} has already completed {} steps", meta.step));
    }
    if config.train.seed != meta.seed {
        return fail(format!("{dir} was trained with seed {}, not {}", meta.seed, config.train.seed));
    }
    if meta.tokenizer_hash != corpus.tokenizer.as_ref().map(|t| t.hash()) {
        return fail(format!("{dir} was trained with another tokenizer than that of {}", corpus.name));
    }
    if meta.state["data_crc32c"] != data_crc32c {
        return fail(format!("{dir} was trained on data that differs from {}", corpus.name));
    }
    Ok(())
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

fn write_config(config: &Config, dir: &Path) -> Result<()> {
    let text = toml::to_string_pretty(config).map_err(|e| Error::usage(e.to_string()))?;
    write_atomic(&dir.join("config.toml"), text.as_bytes())
}

/// A directory in `runs` that does not exist yet, for a new run. Its name is the Unix time in seconds.
pub fn new_run(runs: &Path) -> PathBuf {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = |n: u64| if n == 0 { seconds.to_string() } else { format!("{seconds}-{n}") };
    (0..).map(|n| runs.join(name(n))).find(|dir| !dir.exists()).expect("numbers do not run out")
}

/// The run in `runs` whose log was written last.
///
/// # Errors
/// When `runs` cannot be read or contains no run.
pub fn newest_run(runs: &Path) -> Result<PathBuf> {
    let entries = match std::fs::read_dir(runs) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(runs, e)),
        entries => entries.into_iter().flatten(),
    };
    let dated = entries.flatten().filter_map(|e| {
        let changed = e.path().join("metrics.jsonl").metadata().and_then(|m| m.modified()).ok()?;
        Some((changed, e.path()))
    });
    let none = || Error::usage(format!("there is no run in {}: start one with nanotern train", runs.display()));
    dated.max().map(|(_, path)| path).ok_or_else(none)
}
