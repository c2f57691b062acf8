//! `nanotern eval`.

use super::data::DocumentArgs;
use super::model::{ContextArgs, ModelArgs};
use super::out::outln;
use super::{DeviceArgs, say};
use nanotern::backend::{Backend, Cpu, Level};
use nanotern::formats::ModelFile;
use nanotern::{Error, Result, data, eval};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum EvalCommand {
    /// Cross-entropy of a text, in nats per token and bits per byte.
    Perplexity {
        #[command(flatten)]
        model: ModelArgs,
        /// File or folder of documents (text, JSON lines, Parquet), or token file (.bin). No BOS is put in front.
        #[arg(long)]
        data_path: PathBuf,
        #[command(flatten)]
        documents: DocumentArgs,
        #[command(flatten)]
        context: ContextArgs,
        #[command(flatten)]
        device: DeviceArgs,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Exact answers to the held-out questions of the synthetic data, by task.
    Synthetic {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        context: ContextArgs,
        #[command(flatten)]
        device: DeviceArgs,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Compare a backend with the scalar reference, op by op, on this model.
    Parity {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        context: ContextArgs,
        #[command(flatten)]
        device: DeviceArgs,
        /// Text to run.
        #[arg(long, default_value = "The quick brown fox jumps over the lazy dog.")]
        prompt: String,
    },
}

pub fn run(command: &EvalCommand) -> Result<ExitCode> {
    match command {
        EvalCommand::Perplexity { model, data_path, documents, context, device, json } => {
            perplexity(&open(model, context)?, data_path, documents, device, *json)
        }
        EvalCommand::Synthetic { model, context, device, json } => synthetic(&open(model, context)?, device, *json),
        EvalCommand::Parity { model, context, device, prompt } => parity(&open(model, context)?, device, prompt),
    }
}

fn open(model: &ModelArgs, context: &ContextArgs) -> Result<ModelFile> {
    let (mut file, _) = model.open()?;
    context.limit(&mut file)?;
    Ok(file)
}

fn perplexity(
    file: &ModelFile,
    data_path: &Path,
    documents: &DocumentArgs,
    device: &DeviceArgs,
    json: bool,
) -> Result<ExitCode> {
    let (tokens, bytes) = if data_path.extension().is_some_and(|e| e == "bin") {
        let (tokens, meta) = data::Tokens::open(data_path)?;
        (tokens, meta.map(|meta| meta.bytes))
    } else {
        let tokenizer = file
            .tokenizer()?
            .ok_or_else(|| Error::usage("the model has no tokenizer: --data-path must be a token file (.bin)"))?;
        let (tokens, report) = data::load_documents(&documents.config(), data_path, &tokenizer)?;
        say(&report.to_string());
        (tokens, Some(report.val.bytes))
    };
    let p = eval::perplexity(file, &device.open()?, &tokens, bytes)?;
    if json {
        outln!(
            "{}",
            serde_json::json!({ "nats_per_token": p.nats_per_token, "bits_per_byte": p.bits_per_byte,
                "perplexity": p.perplexity(), "tokens": p.tokens, "passes": p.passes })
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let bits = p.bits_per_byte.map_or(String::new(), |b| format!(", {b:.4} bits/byte"));
    let passes = p.passes.map_or(String::new(), |passes| format!(", {passes:.2} passes a token"));
    let (nats, perplexity, tokens) = (p.nats_per_token, p.perplexity(), p.tokens);
    outln!("{nats:.4} nats/token{bits}, perplexity {perplexity:.3} over {tokens} tokens{passes}")?;
    Ok(ExitCode::SUCCESS)
}

fn synthetic(file: &ModelFile, device: &DeviceArgs, json: bool) -> Result<ExitCode> {
    let scores = eval::synthetic(file, &device.open()?)?;
    let (asked, right) = scores.values().fold((0, 0), |(a, r), s| (a + s.asked, r + s.right));
    let fraction = |right: usize, asked: usize| right as f64 / asked.max(1) as f64;
    if json {
        let tasks: serde_json::Map<_, _> =
            scores.iter().map(|(t, s)| (t.to_string(), fraction(s.right, s.asked).into())).collect();
        outln!("{}", serde_json::json!({ "exact": fraction(right, asked), "asked": asked, "tasks": tasks }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (task, s) in &scores {
        outln!("{task:12} {:5.1} %  ({} of {})", 100.0 * fraction(s.right, s.asked), s.right, s.asked)?;
    }
    outln!("{:12} {:5.1} %  ({right} of {asked})", "all", 100.0 * fraction(right, asked))?;
    Ok(ExitCode::SUCCESS)
}

fn parity(file: &ModelFile, device: &DeviceArgs, prompt: &str) -> Result<ExitCode> {
    let tokenizer = file.tokenizer()?.ok_or_else(|| Error::usage("the model has no tokenizer"))?;
    let (scalar, other) = (Backend::Cpu(Cpu::new(Level::Scalar, Some(1))?), device.open()?);
    let differences = eval::parity(file, &scalar, &other, &tokenizer.encode(prompt)?)?;
    for d in &differences {
        outln!("{} of {} differs by {:.1e}", d.output, d.op, d.error)?;
    }
    if differences.is_empty() {
        outln!("every op agrees with the scalar reference on {}", other.describe())?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
