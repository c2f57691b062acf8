//! `nanotern tokenizer` and `nanotern data`.

use super::out::outln;
use super::say;
use nanotern::data::{self, DataConfig, Dataset};
use nanotern::files::{check_output, path_text};
use nanotern::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// How documents are read.
#[derive(clap::Args)]
pub struct DocumentArgs {
    /// Field of JSON lines, or column of Parquet files, with the text.
    #[arg(long, default_value = "text")]
    field: String,
    /// Read the spelling of a special token as that token; that of the end-of-document token ends a document.
    #[arg(long)]
    special_tokens: bool,
}

impl DocumentArgs {
    /// A configuration of data that are read so.
    pub fn config(&self) -> DataConfig {
        let DocumentArgs { field, special_tokens } = self;
        let (field, special_tokens) = (field.clone(), *special_tokens);
        DataConfig { dataset: Dataset::Text, field, special_tokens, ..DataConfig::default() }
    }
}

#[derive(clap::Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE on the documents of a file or a folder.
    Train {
        /// File or folder: text, JSON lines, Parquet.
        #[arg(long)]
        input: PathBuf,
        #[command(flatten)]
        documents: DocumentArgs,
        /// Most tokens of the vocabulary.
        #[arg(long, default_value_t = data::DEFAULT_VOCAB_SIZE)]
        vocab_size: usize,
        /// File to write; an existing file is replaced.
        #[arg(long, default_value = "tokenizer.json")]
        output: PathBuf,
    },
}

#[derive(clap::Subcommand)]
pub enum DataCommand {
    /// Encode text into token files: train.bin and val.bin, with tokenizer.json.
    Prepare {
        /// File or folder: text, JSON lines (also .zst or .gz), Parquet.
        #[arg(long)]
        input: PathBuf,
        /// Folder to write to; only files that an earlier call wrote are replaced.
        #[arg(long)]
        output: PathBuf,
        #[command(flatten)]
        documents: DocumentArgs,
        /// bpe (trains a tokenizer on the training part), bytes, or a tokenizer.json.
        #[arg(long, default_value = "bpe")]
        tokenizer: PathBuf,
        /// Most tokens of a trained vocabulary, by default 4096; the largest allowed of a given one.
        #[arg(long)]
        vocab_size: Option<usize>,
        /// Fraction of the documents held back for validation; of few documents, of each.
        #[arg(long, default_value_t = 0.1)]
        val_fraction: f64,
        /// Validation documents; without them a part of the input is held back.
        #[arg(long)]
        val_input: Option<PathBuf>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub fn tokenizer(command: &TokenizerCommand) -> Result<ExitCode> {
    let TokenizerCommand::Train { input, documents, vocab_size, output } = command;
    check_output(output)?;
    let cfg = DataConfig { path: Some(input.clone()), vocab_size: Some(*vocab_size), ..documents.config() };
    let (trained, report) = data::train_tokenizer(&cfg, output)?;
    say(&report.to_string());
    outln!("{}: {} tokens", output.display(), trained.vocab_size())?;
    Ok(ExitCode::SUCCESS)
}

pub fn data(command: &DataCommand) -> Result<ExitCode> {
    let DataCommand::Prepare { input, output, documents, tokenizer, vocab_size, val_fraction, val_input, json } =
        command;
    let cfg = DataConfig {
        path: Some(input.clone()),
        val_path: val_input.clone(),
        tokenizer: path_text(tokenizer).into_owned(),
        vocab_size: *vocab_size,
        val_fraction: *val_fraction,
        ..documents.config()
    };
    let done = data::prepare(&cfg, output)?;
    if *json {
        outln!("{}", serde_json::to_string(&done).map_err(|e| Error::usage(e.to_string()))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{}", done.report)?;
    outln!("tokenizer  {} tokens, {}", done.vocab_size, done.tokenizer_hash)?;
    for file in &done.files {
        outln!("wrote      {}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
