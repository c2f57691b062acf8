//! `nanotern train`.

use super::model::local;
use super::{DeviceArgs, say};
use nanotern::data::{self, Corpus, OF_MODEL};
use nanotern::files::path_text;
use nanotern::formats::Parameters;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{Config, Outcome, Run, Signals, Start, fma_peak, newest_run};
use nanotern::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct TrainArgs {
    #[arg(long, env = "NANOTERN_CONFIG", help = super::config_help())]
    config: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Data set: synthetic, shakespeare, text or tokens.
    #[arg(long, env = "NANOTERN_DATASET")]
    dataset: Option<String>,
    /// File or folder of documents (text, JSON lines, Parquet), or token file (.bin).
    #[arg(long, env = "NANOTERN_DATA_PATH")]
    data_path: Option<PathBuf>,
    /// Validation data of the same kind; without it a part of the data is held back.
    #[arg(long, env = "NANOTERN_VAL_DATA_PATH")]
    val_data_path: Option<PathBuf>,
    /// Field of JSON lines, or column of Parquet files, with the text.
    #[arg(long, env = "NANOTERN_FIELD")]
    field: Option<String>,
    /// bpe (trains a tokenizer), bytes, or a tokenizer.json.
    #[arg(long, env = "NANOTERN_TOKENIZER")]
    tokenizer: Option<PathBuf>,
    /// Vocabulary size of a token file, or of the tokenizer to train.
    #[arg(long, env = "NANOTERN_VOCAB_SIZE")]
    vocab_size: Option<i64>,
    /// Optimizer steps.
    #[arg(long, env = "NANOTERN_TOTAL_STEPS")]
    total_steps: Option<i64>,
    /// Sequences in a micro-batch.
    #[arg(long, env = "NANOTERN_BATCH_SIZE")]
    batch_size: Option<i64>,
    /// Micro-batches in a step.
    #[arg(long, env = "NANOTERN_GRAD_ACCUM")]
    grad_accum: Option<i64>,
    /// Tokens in a sequence.
    #[arg(long, env = "NANOTERN_SEQ_LEN")]
    seq_len: Option<i64>,
    /// Learning rate of Muon.
    #[arg(long, env = "NANOTERN_LR")]
    lr: Option<f64>,
    /// Directory for checkpoints and logs: new, empty, or that of a run without checkpoints; by default a new one under runs/.
    #[arg(long, env = "NANOTERN_CHECKPOINT_DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Steps between checkpoints; 0 saves at the end only.
    #[arg(long, env = "NANOTERN_CHECKPOINT_INTERVAL")]
    checkpoint_interval: Option<i64>,
    /// Number of checkpoints to keep besides the final one.
    #[arg(long, env = "NANOTERN_KEEP_LAST_CHECKPOINTS")]
    keep_last_checkpoints: Option<i64>,
    /// Steps between lines of the log.
    #[arg(long, env = "NANOTERN_LOG_INTERVAL")]
    log_interval: Option<i64>,
    /// Steps between evaluations; 0 evaluates at the end only.
    #[arg(long, env = "NANOTERN_EVAL_INTERVAL")]
    eval_interval: Option<i64>,
    /// Continue from the newest valid checkpoint of a run: DIR, --checkpoint-dir, or the newest run. Keys that would make
    /// another model of it are refused.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Start a new run in DIR from the weights of a run (that of --resume, or the newest), at step 0 and with a fresh optimizer.
    #[arg(long, value_name = "DIR")]
    fork: Option<PathBuf>,
    /// Start from the weights of a model: a folder as Hugging Face has them, a GGUF file, a checkpoint, a run or
    /// hf:owner/name. Its architecture is the [model] section, and its tokenizer reads the data unless --tokenizer names another.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["resume", "fork"])]
    init: Option<PathBuf>,
    /// With --fork: replace each matrix by the nearest one with equal singular values, to learn other data well (FIRE).
    #[arg(long, requires = "fork")]
    fire: bool,
    /// Seed of the initial weights and of the order of the data.
    #[arg(long, env = "NANOTERN_SEED")]
    seed: Option<i64>,
    /// Any key of the configuration, such as --set optim.muon_lr=0.04; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
}

impl TrainArgs {
    /// The flags as overrides of configuration keys.
    fn overrides(&self) -> Result<Vec<(String, toml::Value)>> {
        let mut list: Vec<(String, toml::Value)> = Vec::new();
        let mut add = |key: &str, value: Option<toml::Value>| list.extend(value.map(|v| (key.to_string(), v)));
        let path = |p: &Option<PathBuf>| -> Result<Option<toml::Value>> {
            let absolute = p.as_ref().map(|p| std::path::absolute(p).map_err(|e| Error::io(p, e))).transpose()?;
            Ok(absolute.map(|p| path_text(&p).into_owned().into()))
        };
        let guessed =
            self.data_path.as_ref().map(|p| if p.extension().is_some_and(|e| e == "bin") { "tokens" } else { "text" });
        add("data.dataset", self.dataset.as_deref().or(guessed).map(Into::into));
        add("data.path", path(&self.data_path)?);
        add("data.val_path", path(&self.val_data_path)?);
        add("data.field", self.field.as_deref().map(Into::into));
        let tokenizer = match self.tokenizer.as_ref().map(|t| t.to_str()) {
            Some(Some(word @ ("bpe" | "bytes" | OF_MODEL))) => Some(word.into()),
            _ => path(&self.tokenizer)?,
        };
        add("data.tokenizer", tokenizer);
        for (key, value) in [
            ("data.vocab_size", self.vocab_size),
            ("train.total_steps", self.total_steps),
            ("train.batch_size", self.batch_size),
            ("train.grad_accum", self.grad_accum),
            (if self.init.is_some() { "train.seq_len" } else { "model.seq_len" }, self.seq_len),
            ("train.checkpoint_interval", self.checkpoint_interval),
            ("train.keep_last_checkpoints", self.keep_last_checkpoints),
            ("train.log_interval", self.log_interval),
            ("train.eval_interval", self.eval_interval),
            ("train.seed", self.seed),
        ] {
            add(key, value.map(Into::into));
        }
        add("optim.muon_lr", self.lr.map(Into::into));
        for item in &self.overrides {
            list.push(Config::parse_override(item)?);
        }
        Ok(list)
    }
}

/// The run that a command goes on from.
fn source(args: &TrainArgs) -> Result<Option<PathBuf>> {
    Ok(match (&args.resume, &args.checkpoint_dir) {
        (Some(Some(run)), Some(dir)) if !same(run, dir) => {
            let (run, dir) = (run.display(), dir.display());
            return Err(Error::usage(format!(
                "--resume {run} and --checkpoint-dir {dir} (or NANOTERN_CHECKPOINT_DIR): a run continues in its own \
                 directory; give only one of them"
            )));
        }
        (_, Some(dir)) if args.fork.is_some() => {
            return Err(Error::usage(format!(
                "--fork and --checkpoint-dir {} (or NANOTERN_CHECKPOINT_DIR): --fork names the directory of the new run, \
                 and --resume that of the old one",
                dir.display()
            )));
        }
        (Some(Some(dir)), _) | (Some(None), Some(dir)) => Some(dir.clone()),
        (None, _) if args.fork.is_none() => None,
        (Some(None) | None, _) => Some(newest_run(Path::new("runs"))?),
    })
}

pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let source = source(args)?;
    let saved = source.as_ref().map(|dir| dir.join("config.toml"));
    if let (Some(dir), Some(saved)) = (&source, &saved)
        && !saved.is_file()
    {
        return Err(Error::usage(format!("--resume: {} is not a run: it has no config.toml", dir.display())));
    }
    let start = match (&source, &args.fork, &args.checkpoint_dir) {
        (Some(from), Some(to), _) => Start::Fork { from, to, fire: args.fire },
        (Some(dir), None, _) => Start::Resume(dir),
        (None, _, Some(dir)) => Start::New(dir),
        (None, _, None) => Start::Within(Path::new("runs")),
    };
    start.check()?;
    let init = args.init.as_ref().map(|path| Parameters::open(&local(path)?)).transpose()?;
    let config = load_config(init.as_ref(), args.config.as_deref().or(saved.as_deref()), &args.overrides()?)?;
    let backend = args.device.open()?;
    say(&format!("device   {}", args.device.describe(&backend)));
    let corpus = load_data(&config, init.as_ref(), source.as_deref())?;
    corpus.report.iter().for_each(|report| say(&report.to_string()));
    let mut run = Run::new(config, corpus, start, &backend)?;
    if let (Some(model), Some(path)) = (&init, &args.init) {
        run.begin_with(model)?;
        say(&format!("init     the weights of {}", path.display()));
    }
    say(&run.describe());
    run.set_peak(fma_peak(&backend)?);
    let outcome = run.train()?;
    finish(run.dir(), outcome)
}

/// Tokens of a sequence, where a model that is trained further has a longer context and nothing else is asked for.
const SEQ_LEN: usize = 512;

/// What is set for a model that is trained further, unless something else is.
fn defaults(model: &Parameters) -> Vec<(String, toml::Value)> {
    let mut list = Vec::new();
    if model.text.tokenizer_json.is_some() {
        list.push(("data.tokenizer".to_string(), OF_MODEL.into()));
    }
    if model.config.seq_len > SEQ_LEN {
        list.push(("train.seq_len".to_string(), (SEQ_LEN as i64).into()));
    }
    list
}

/// Loads the data, for a model that is trained further with its tokenizer and for its rows of the embedding.
fn load_data(config: &Config, init: Option<&Parameters>, source: Option<&Path>) -> Result<Corpus> {
    let load =
        |tokenizer: Option<&Tokenizer>| data::load_for(&config.data, Path::new(""), Path::new("runs"), tokenizer);
    let saved = match source {
        Some(run) if config.data.tokenizer == OF_MODEL => Some(Parameters::from_checkpoint(run, true)?.0),
        _ => None,
    };
    match init.or(saved.as_ref()) {
        None => load(None),
        Some(model) if config.data.tokenizer == OF_MODEL => {
            load(model.text.tokenizer(model.vocab)?.as_ref())?.of_rows(model.vocab)
        }
        Some(model) => {
            let corpus = load(None)?;
            let (have, rows) = (corpus.vocab_size, model.vocab);
            if have != rows {
                return Err(Error::usage(format!(
                    "the data have a vocabulary of {have}, but the model has {rows} rows of the embedding: leave out --tokenizer to \
                     use the model's own, or give --vocab-size {rows} for a token file"
                )));
            }
            Ok(corpus)
        }
    }
}

/// Loads the configuration, for a model that is there. Validation data that it names are not those of another data set given now.
fn load_config(model: Option<&Parameters>, from: Option<&Path>, overrides: &[(String, toml::Value)]) -> Result<Config> {
    let load = |overrides: &[_]| match model {
        Some(model) => Config::load_for(&model.config, &defaults(model), from, overrides),
        None => Config::load(from, overrides),
    };
    let mut config = load(overrides)?;
    if overrides.iter().any(|(key, _)| key == "data.val_path") {
        return Ok(config);
    }
    let of = |c: &Config| (c.data.dataset, c.data.path.clone());
    let same = load(&[]).is_ok_and(|before| of(&before) == of(&config));
    if let Some(old) = config.data.val_path.take_if(|_| !same) {
        let old = old.display();
        say(&format!("val_path {old} is of other data and not used; --val-data-path names validation data"));
    }
    Ok(config)
}

/// Whether two paths are of the same folder.
fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

fn finish(dir: &Path, outcome: Outcome) -> Result<ExitCode> {
    let Outcome { step, train_loss, val_loss, checkpoint, signal } = outcome;
    let shown = |loss: f64| if loss.is_finite() { format!("{loss:.4}") } else { "not a finite number".to_string() };
    let val = val_loss.map_or(String::new(), |loss| format!(", validation {}", shown(loss)));
    say(&format!("step {step}: training loss {}{val}; saved {}", shown(train_loss), checkpoint.display()));
    if let Some(signal) = signal {
        say(&format!("stopped by a signal; continue with: nanotern train --resume {}", dir.display()));
        return Ok(ExitCode::from(Signals::exit_code(signal) as u8));
    }
    Ok(ExitCode::SUCCESS)
}
