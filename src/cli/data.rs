//! `nanotern tokenizer` and `nanotern data`.

use super::out::outln;
use nanotern::files::{check_output, path_text};
use nanotern::{Result, data};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE on a text file or all files of a folder.
    Train {
        /// Text file or folder.
        #[arg(long)]
        input: PathBuf,
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
        /// Text file or folder.
        #[arg(long)]
        input: PathBuf,
        /// Folder to write to; only files that an earlier call wrote are replaced.
        #[arg(long)]
        output: PathBuf,
        /// bpe (trains a tokenizer on the training part), bytes, or a tokenizer.json.
        #[arg(long, default_value = "bpe")]
        tokenizer: PathBuf,
        /// Most tokens of a trained vocabulary.
        #[arg(long, default_value_t = data::DEFAULT_VOCAB_SIZE)]
        vocab_size: usize,
        /// Fraction of the text held back for validation.
        #[arg(long, default_value_t = 0.1)]
        val_fraction: f64,
    },
}

pub fn tokenizer(command: &TokenizerCommand) -> Result<ExitCode> {
    let TokenizerCommand::Train { input, vocab_size, output } = command;
    check_output(output)?;
    let trained = data::train_tokenizer(input, *vocab_size, output)?;
    outln!("{}: {} tokens", output.display(), trained.vocab_size())?;
    Ok(ExitCode::SUCCESS)
}

pub fn data(command: &DataCommand) -> Result<ExitCode> {
    let DataCommand::Prepare { input, output, tokenizer, vocab_size, val_fraction } = command;
    let done = data::prepare(input, output, &path_text(tokenizer), *vocab_size, *val_fraction)?;
    outln!("training    {} tokens ({} bytes of text)", done.train_tokens, done.train_bytes)?;
    outln!("validation  {} tokens ({} bytes of text)", done.val_tokens, done.val_bytes)?;
    outln!("tokenizer   {} tokens, {}", done.vocab_size, done.tokenizer_hash)?;
    for file in &done.files {
        outln!("wrote       {}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
