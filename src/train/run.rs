//! A training run: data, steps, evaluations, checkpoints and logs. A run stops at a signal and can be resumed there.

use super::config::Config;
use super::fire;
use super::folder::{Folder, Start, write_config};
use super::metrics::{EvalRecord, MetricsWriter, StepRecord, last_step, read_losses};
use super::peak::utilisation;
use super::plot::{self, loss_svg};
use super::progress::{Progress, Status};
use super::resume::{self, Sums};
use super::session::Session;
use super::signals::Signals;
use super::tensorboard::EventWriter;
use super::trainer::StepStats;
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint, Meta, RolledBack, RunState};
use crate::data::{Corpus, OF_MODEL, bits_per_byte};
use crate::error::mib;
use crate::files::write_within;
use crate::formats::{Parameters, TextConfig};
use crate::graph::Precision;
use crate::ops::STATS_RING;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Consecutive skipped steps after which the run is rolled back to a checkpoint.
const SKIPS_BEFORE_ROLLBACK: u64 = 8;
/// Nats per token by which the loss of a run that has diverged exceeds that of a uniform guess.
const DIVERGED: f64 = 1.0;

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
    /// The most operations per second that this device reached, in multiply-adds of floats or in this run.
    peak_flops: Option<f64>,
    /// Opened when training starts.
    logs: Option<Logs>,
    progress: Progress,
    signals: Signals,
    state: State,
    /// The checkpoint that the run goes on from.
    from: Option<PathBuf>,
    /// The weights are those of another run or model, of which nothing is saved here yet.
    forked: bool,
    /// Steps whose statistics were read and counted.
    read: u64,
    /// The step from which on a checkpoint is to be saved that could not be saved when it was due.
    owed: Option<u64>,
    /// The step of the newest checkpoint that this run saved or started from.
    saved: Option<u64>,
    diverged: Diverged,
    before_step: Option<BeforeStep>,
    folder: Folder,
}

/// Whether it was said that the run has diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Diverged {
    Unsaid,
    Said,
    Logged,
}

type BeforeStep = Box<dyn FnMut(&mut Session)>;

/// What a checkpoint keeps of the run besides its session.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    skipped: u64,
    skipped_in_a_row: u64,
    diverged_in_a_row: u64,
    rolled_back: Option<RolledBack>,
    logged: u64,
    train_loss: f64,
    val_loss: Option<f64>,
}

struct Logs {
    metrics: MetricsWriter,
    events: EventWriter,
}

impl Logs {
    /// Opens the logs of a run that starts, or goes on after the step `resumed`. Also returns what is to be said.
    fn open(dir: &Path, resumed: Option<u64>) -> (Logs, Vec<String>) {
        let mut metrics = MetricsWriter::open(dir, resumed);
        let (events, said) = EventWriter::open(dir, resumed.unwrap_or(0));
        let said = metrics.log().append(&[]).into_iter().chain(said).collect();
        (Logs { metrics, events }, said)
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
                Some(checkpoint::newest_model(from)?.ok_or_else(none)?)
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
                let before = saved.meta.state.device.as_ref().filter(|before| **before != device);
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
        if config.train.precision == Precision::Fast && !backend.multiplies_f16() {
            said.push("train.precision = fast: this device rounds as others do, but is not faster for it".into());
        }
        let mut session = Session::new(config, corpus, backend)?;
        session.trainer.program.stop_if(Signals::arrived);
        let mut state = State::default();
        match &saved {
            Some((saved, _)) if forked => {
                session.trainer.load_model(&saved.model)?;
                session.text = TextConfig::saved(saved)?;
                if let Start::Fork { fire: true, .. } = start {
                    fire::reinitialise(&mut session.trainer, backend)?;
                    said.push("each matrix is replaced by its polar factor (FIRE)".into());
                }
            }
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
            forked,
            read: session.step,
            owed: None,
            saved: saved.as_ref().map(|(saved, _)| saved.meta.step),
            from: saved.map(|(saved, _)| saved.dir).filter(|_| !forked),
            diverged: Diverged::Unsaid,
            before_step: None,
            dir,
            session,
            folder,
        };
        said.iter().for_each(|line| run.progress.message(line));
        Ok(run)
    }

    /// Sets the weights of a run that starts. With the model's tokenizer, the rest of how it spells ids goes with them.
    ///
    /// # Errors
    /// [`Error::Usage`] names a weight that does not fit the configuration.
    pub fn begin_with(&mut self, model: &Parameters) -> Result<()> {
        self.session.trainer.load_model(&model.weights)?;
        let before = Config { model: model.config.clone(), ..self.session.config.clone() };
        self.say([resume::fork(&before, &self.session.config)?]);
        self.session.text = (self.session.config.data.tokenizer == OF_MODEL).then(|| model.text.clone());
        self.forked = true;
        Ok(())
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
        let epochs =
            config.train.total_steps as f64 * step.shape.tokens() as f64 / (windows as f64 * config.seq_len() as f64);
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

    /// Calls `f` before each step, such as to make it fail in a test.
    #[doc(hidden)]
    pub fn before_each_step(&mut self, f: impl FnMut(&mut Session) + 'static) {
        self.before_step = Some(Box::new(f));
    }

    /// Trains until the last step or a signal. In both cases it leaves a checkpoint and a plot. A signal ends a step or an
    /// evaluation in progress, which a resumed run repeats. A run that is complete already stays as it is.
    ///
    /// A log that cannot be written is said, and tried again. So is a checkpoint, but for the last. A run whose weights are
    /// not finite, or with too many skipped steps in a row, goes back to the newest good checkpoint, then to older ones.
    ///
    /// # Errors
    /// When the device fails; when the last checkpoint cannot be saved; when no checkpoint is left to go back to.
    pub fn train(&mut self) -> Result<Outcome> {
        let (step, total) = (self.session.step, self.session.config.train.total_steps);
        if let Some(fin) = self.from.clone().filter(|dir| step == total && dir.ends_with("final"))
            && self.recorded().is_some()
        {
            self.progress
                .message(&format!("nothing to do: all {total} steps are done; a larger --total-steps goes on"));
            return Ok(self.outcome(fin));
        }
        write_config(&self.session.config, &self.dir)?;
        self.logs();
        if self.forked {
            self.save(&checkpoint::step_name(step))?;
        }
        loop {
            match self.steps() {
                Err(Error::Stopped) => {}
                ended => ended?,
            }
            self.take_stats()?;
            match self.finish() {
                Err(Error::NotFinite(what)) if self.signals.pending().is_none() => self.roll_back(&what)?,
                Err(Error::NotFinite(what)) => return Err(self.unsaved(&format!("checkpoint not saved: {what}"))),
                Err(Error::Checkpoint(what)) => return Err(self.unsaved(&what)),
                ended => return ended,
            }
        }
    }

    fn steps(&mut self) -> Result<()> {
        let total = self.session.config.train.total_steps;
        let due = |interval: u64, step: u64| interval != 0 && step != 0 && step.is_multiple_of(interval);
        let at = self.session.step;
        // An evaluation that a signal ended.
        if due(self.session.config.train.eval_interval, at) && at != total && self.recorded().is_none() {
            self.evaluate()?;
        }
        let mut since = Instant::now();
        let mut logged = at;
        while self.session.step < total && self.signals.pending().is_none() {
            if let Some(f) = &mut self.before_step {
                f(&mut self.session);
            }
            self.session.submit()?;
            let step = self.session.step;
            let due = |interval: u64| due(interval, step);
            let log = due(self.session.config.train.log_interval) || step == total || step == 1;
            let full = step - self.read >= STATS_RING as u64 / 2;
            let save = due(self.session.config.train.checkpoint_interval) || self.owed.is_some_and(|at| step >= at);
            if log || full || save {
                self.folder.check()?;
                let last = self.take_stats()?;
                if let Some(last) = last.filter(|_| log) {
                    let seconds = since.elapsed().as_secs_f64();
                    self.log(last, (step - logged) as f64 / seconds.max(1e-9))?;
                    (since, logged) = (Instant::now(), step);
                }
                if let Some(why) = self.trouble()? {
                    self.roll_back(&why)?;
                    logged = self.session.step;
                    continue;
                }
            }
            self.progress.advance(step);
            let pause = Instant::now();
            // Before saving, so that a run resumed from this checkpoint has all records up to it.
            if due(self.session.config.train.eval_interval) && step != total {
                self.evaluate()?;
            }
            if save && step != total {
                match self.save_in_passing() {
                    Err(Error::NotFinite(what)) => {
                        self.roll_back(&what)?;
                        logged = self.session.step;
                    }
                    saved => saved?,
                }
            }
            since += pause.elapsed();
        }
        Ok(())
    }

    /// Saves a checkpoint that is due; within a streak of skipped steps later, for it may be what they come from. If it cannot
    /// be saved, that is said, and it is tried again a tenth of the interval later.
    fn save_in_passing(&mut self) -> Result<()> {
        let step = self.session.step;
        if self.state.skipped_in_a_row > 0 {
            self.owed = Some(step + 1);
            return Ok(());
        }
        self.owed = None;
        match self.save(&checkpoint::step_name(step)) {
            Err(Error::Checkpoint(what)) => {
                let next = step + (self.session.config.train.checkpoint_interval / 10).max(1);
                self.progress.message(&format!("warning: {what}\nthe run goes on, and tries again at step {next}"));
                self.owed = Some(next);
            }
            saved => {
                saved?;
                let pruned = checkpoint::prune(&self.dir, self.session.config.train.keep_last_checkpoints);
                self.say([pruned.err().map(|e| format!("warning: an old checkpoint cannot be deleted: {e}"))]);
            }
        }
        Ok(())
    }

    /// Why the run cannot go on from here, if it cannot: a value that is not finite, or too many skipped steps. The steps
    /// after the first that showed it do not count.
    fn trouble(&mut self) -> Result<Option<String>> {
        let row = self.state.skipped_in_a_row;
        if row == 0 {
            return Ok(None);
        }
        if let Some(what) = self.session.trainer.not_finite()? {
            // It was so at the first of them: a step that is skipped changes no value.
            self.read = self.read.saturating_sub(row - 1);
            self.state.skipped = self.state.skipped.saturating_sub(row - 1);
            return Ok(Some(what));
        }
        let what = format!("{SKIPS_BEFORE_ROLLBACK} steps in a row had a loss or gradient that cannot be used");
        Ok((row >= SKIPS_BEFORE_ROLLBACK).then_some(what))
    }

    /// The error of a run that ends without its last checkpoint.
    fn unsaved(&self, why: &str) -> Error {
        let step = self.session.step;
        let lost = match self.saved {
            Some(saved) if saved == step => "its validation loss".to_string(),
            saved => format!("steps {} to {step}", saved.unwrap_or(0) + 1),
        };
        Error::Checkpoint(format!("{why}\nlost: {lost}"))
    }

    /// The validation loss that the log has for the present step.
    fn recorded(&self) -> Option<f64> {
        let (step, loss) = read_losses(&self.dir).ok()?.val.pop()?;
        (step == self.session.step).then_some(loss)
    }

    fn finish(&mut self) -> Result<Outcome> {
        self.folder.check()?;
        let step = self.session.step;
        let done = step == self.session.config.train.total_steps;
        let name = if done { "final".to_string() } else { checkpoint::step_name(step) };
        let skipped = self.state.skipped_in_a_row;
        if !done && skipped > 0 && self.saved.is_some() {
            let what = format!("checkpoint {name} not saved: the last {skipped} steps were skipped");
            return Err(Error::Checkpoint(what));
        }
        if done {
            let what = || format!("warning: the last {skipped} steps were skipped");
            self.say([(skipped > 0).then(what)]);
            checkpoint::keep_final(&self.dir, step).map_err(|e| Error::Checkpoint(e.to_string()))?;
        }
        let mut saved = self.save(&name)?;
        if done {
            let loss = match self.recorded() {
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
        self.write_plot();
        let logs = self.logs();
        let said = [logs.metrics.log().close(), logs.events.close()];
        self.say(said);
        self.progress.finish();
        Ok(self.outcome(saved))
    }

    fn say(&self, lines: impl IntoIterator<Item = Option<String>>) {
        lines.into_iter().flatten().for_each(|line| self.progress.message(&line));
    }

    fn outcome(&self, checkpoint: PathBuf) -> Outcome {
        let State { train_loss, val_loss, .. } = self.state;
        Outcome { step: self.session.step, train_loss, val_loss, checkpoint, signal: self.signals.pending() }
    }

    fn logs(&mut self) -> &mut Logs {
        if self.logs.is_none() {
            let (step, resumed) = (self.session.step, self.from.is_some());
            let (logs, said) = Logs::open(&self.dir, resumed.then_some(step));
            self.logs = Some(logs);
            self.say(said.into_iter().map(Some));
            let last = last_step(&self.dir, step).unwrap_or(0);
            if resumed && last < self.state.logged {
                let missing = format!("the log has no records of steps {} to {}", last + 1, self.state.logged);
                self.progress.message(&missing);
            }
        }
        self.logs.as_mut().expect("just opened")
    }

    /// Counts the steps since the last time, and returns the statistics of the last. It ends with the step that is one too many
    /// of those skipped in a row: so what a rollback does depends on the steps alone, not on when they are counted.
    fn take_stats(&mut self) -> Result<Option<StepStats>> {
        let mut stats = self.session.trainer.stats(self.read..self.session.step)?;
        let last = stats.last().copied();
        let counted = stats.iter().position(|s| {
            self.read += 1;
            if s.skipped {
                self.state.skipped += 1;
                self.state.skipped_in_a_row += 1;
                let (loss, norm) = (s.loss, s.grad_norm);
                self.progress.message(&format!("a step was skipped: loss {loss}, gradient norm {norm}"));
            } else {
                self.state.skipped_in_a_row = 0;
            }
            self.state.skipped_in_a_row >= SKIPS_BEFORE_ROLLBACK
        });
        stats.truncate(counted.map_or(stats.len(), |at| at + 1));
        self.watch_for_divergence(&stats);
        let good: Vec<f64> = stats.iter().filter(|s| !s.skipped).map(|s| f64::from(s.loss)).collect();
        if !good.is_empty() {
            self.state.train_loss = good.iter().sum::<f64>() / good.len() as f64;
        }
        Ok(last)
    }

    /// A run has diverged if the loss was above that of a uniform guess by [`DIVERGED`] for a tenth of its steps, but from 10 to
    /// 100, in a row. That is said once.
    fn watch_for_divergence(&mut self, stats: &[StepStats]) {
        let limit = (self.session.corpus.vocab_size as f64).ln() + DIVERGED;
        for s in stats.iter().filter(|s| !s.skipped) {
            self.state.diverged_in_a_row = if f64::from(s.loss) > limit { self.state.diverged_in_a_row + 1 } else { 0 };
        }
        let long = (self.session.config.train.total_steps / 10).clamp(10, 100);
        if self.state.diverged_in_a_row >= long && self.diverged == Diverged::Unsaid {
            self.diverged = Diverged::Said;
            let row = self.state.diverged_in_a_row;
            self.progress.message(&format!(
                "warning: the run has diverged: the loss was above ln(vocabulary) + {DIVERGED} = {limit:.2} for {row} steps in a \
                 row; lower the learning rates"
            ));
        }
    }

    fn log(&mut self, last: StepStats, steps_per_s: f64) -> Result<()> {
        let shape = self.session.trainer.step.shape;
        let step = self.session.step;
        let lr = self.session.config.optim.schedule(step - 1, self.session.config.train.total_steps)
            * f64::from(self.session.config.optim.muon_lr);
        let tok_per_s = steps_per_s * shape.tokens() as f64;
        let (loss, grad_norm) = (f64::from(last.loss), f64::from(last.grad_norm));
        let tokens = self.session.tokens;
        let (skipped, diverged) = (last.skipped, self.diverged == Diverged::Said);
        if diverged {
            self.diverged = Diverged::Logged;
        }
        let mut scalars = vec![
            ("train/loss", last.loss),
            ("train/lr", lr as f32),
            ("train/grad_norm", last.grad_norm),
            ("train/tok_per_s", tok_per_s as f32),
        ];
        let experts = self.session.trainer.expert_use()?;
        if let Some(experts) = &experts {
            let least = experts.entropies().into_iter().fold(1.0, f64::min);
            scalars.extend([
                ("experts/least_entropy", least as f32),
                ("experts/largest_load", experts.largest() as f32),
                ("experts/dead", experts.dead() as f32),
            ]);
        }
        let record = StepRecord { step, tokens, loss, lr, grad_norm, tok_per_s, skipped, diverged, experts };
        self.state.logged = step;
        let logs = self.logs();
        let said = [logs.metrics.step(&record), logs.events.scalars(step, &scalars)];
        self.say(said);
        let flops = steps_per_s * self.session.trainer.step.model_flops as f64;
        let mfu = self.peak_flops.as_mut().and_then(|peak| utilisation(peak, flops));
        self.progress.log(&Status { step, loss: self.state.train_loss, lr, tok_per_s, mfu });
        Ok(())
    }

    /// Evaluates and logs the loss of the validation tokens, in nats per token.
    ///
    /// # Errors
    /// When the device fails.
    pub fn evaluate(&mut self) -> Result<f64> {
        let mut val_loss_ahead = pollster::block_on(self.session.validate_heads())?;
        let val_loss = val_loss_ahead.remove(0);
        let corpus = &self.session.corpus;
        let bits = bits_per_byte(val_loss, corpus.val.len(), corpus.val_bytes);
        let (step, tokens) = (self.session.step, self.session.tokens);
        let mut scalars = vec![("val/loss", val_loss as f32)];
        scalars.extend(bits.map(|bits| ("val/bits_per_byte", bits as f32)));
        let tags: Vec<String> = (1..=val_loss_ahead.len()).map(|k| format!("val/loss_ahead_{k}")).collect();
        scalars.extend(tags.iter().map(String::as_str).zip(val_loss_ahead.iter().map(|loss| *loss as f32)));
        let record = EvalRecord { step, tokens, val_loss, val_bits_per_byte: bits, val_loss_ahead };
        let logs = self.logs();
        let said = [logs.metrics.eval(&record), logs.events.scalars(step, &scalars)];
        self.say(said);
        self.progress.message(&format!("step {step}: {}", validation(val_loss, bits)));
        self.state.val_loss = Some(val_loss);
        Ok(val_loss)
    }

    fn save(&mut self, name: &str) -> Result<PathBuf> {
        let step = self.session.step;
        self.state.rolled_back = self.state.rolled_back.filter(|back| step <= back.from);
        let s = self.state;
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
            text: self.session.text.as_ref().map(|text| serde_json::to_value(text).expect("numbers and texts")),
            state: RunState {
                skipped_in_a_row: s.skipped_in_a_row,
                diverged_in_a_row: s.diverged_in_a_row,
                rolled_back: s.rolled_back,
                logged: s.logged,
                data_crc32c: Some(self.sums.train),
                val_crc32c: Some(self.sums.val),
                device: Some(self.device.clone()),
            },
            ..Meta::default()
        };
        let (model, optimizer) = (self.session.trainer.model_tensors()?, self.session.trainer.optimizer_tensors()?);
        let tokenizer = self.session.corpus.tokenizer.as_ref().map(|t| t.to_json());
        let saved = checkpoint::save(&self.dir, name, &meta, &model, &optimizer, tokenizer.as_deref())?;
        self.saved = Some(step);
        Ok(saved)
    }

    /// Goes back to the newest good checkpoint, or, if the run was rolled back and has not come further since, to the newest that
    /// is older than the one it went back to. It continues with the data that follow those of the counted steps.
    fn roll_back(&mut self, why: &str) -> Result<()> {
        let (at, State { skipped, rolled_back, logged, .. }) = (self.read, self.state);
        // No step before the first can be rolled back to.
        let most = rolled_back.map_or(Some(u64::MAX), |back| back.to.checked_sub(1));
        let (saved, warnings) = match most {
            Some(most) => checkpoint::newest_up_to(&self.dir, most)?,
            None => (None, Vec::new()),
        };
        self.say(warnings.into_iter().map(Some));
        let Some(saved) = saved else {
            let left = "there is no checkpoint to go back to";
            return Err(Error::Training(format!("{why}; {left}: lower the learning rates if this happens again")));
        };
        let shape = self.session.trainer.step.shape;
        let uncounted = (self.session.step - at).saturating_mul((shape.batch * shape.accum) as u64);
        let cursor = self.session.cursor.saturating_sub(uncounted);
        let state = restore(&mut self.session, &saved)?;
        let step = self.session.step;
        (self.session.cursor, self.read, self.owed, self.saved) = (cursor, step, None, Some(step));
        let from = rolled_back.map_or(at, |back| back.from.max(at));
        let rolled_back = Some(RolledBack { from, to: step });
        self.state = State { skipped, rolled_back, logged: logged.min(step), skipped_in_a_row: 0, ..state };
        self.progress.message(&format!("{why}; rolled back to {} (step {step})", saved.dir.display()));
        let logs = self.logs();
        logs.metrics.cut(step);
        let said = [logs.metrics.log().append(&[]), logs.events.restart(step)];
        self.say(said);
        Ok(())
    }

    fn write_plot(&self) {
        let path = self.dir.join(plot::FILE_NAME);
        let title = self.dir.file_name().map_or("loss".into(), |n| n.to_string_lossy());
        let written =
            read_losses(&self.dir).and_then(|losses| write_within(&path, loss_svg(&losses, &title).as_bytes()));
        self.progress.message(&match written {
            Ok(()) => format!("loss curve: {}", path.display()),
            Err(e) => format!("warning: no picture of the losses: {e}"),
        });
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
    session.text = TextConfig::saved(saved)?;
    (session.step, session.cursor, session.tokens) = (meta.step, meta.data_cursor, meta.tokens);
    Ok(State {
        skipped: meta.skipped_steps,
        skipped_in_a_row: meta.state.skipped_in_a_row,
        diverged_in_a_row: meta.state.diverged_in_a_row,
        rolled_back: meta.state.rolled_back,
        logged: meta.state.logged,
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
