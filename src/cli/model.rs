//! The flags that choose a model.

use super::say;
use nanotern::formats::mhc::MhcFile;
use nanotern::formats::{ModelFile, ReadFrom, hf};
use nanotern::hub::{Hub, Source};
use nanotern::infer::EngineOptions;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::newest_run;
use nanotern::{Error, Result};
use std::path::{Path, PathBuf};

#[derive(Clone, clap::Args)]
pub struct ModelArgs {
    /// A GGUF file, a folder as Hugging Face has them, a checkpoint, or a run, whose newest checkpoint is used; by default the newest run.
    /// hf:owner/name[@revision][:file] is a model of Hugging Face's hub, which is downloaded into its cache.
    #[arg(long, env = "NANOTERN_MODEL")]
    model: Option<PathBuf>,
    /// Use the residual mixing of this .mhc file instead of the model's.
    #[arg(long, value_name = "FILE", env = "NANOTERN_MHC")]
    mhc: Option<PathBuf>,
    /// Use this tokenizer.json instead of the model's tokenizer.
    // NANOTERN_TOKENIZER belongs to `train`, where it may also be `bpe` or `bytes`.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Times that a token passes the shared layers of a model with a loop, at most as many as in training; by default as many.
    #[arg(long, value_name = "TIMES", env = "NANOTERN_PASSES")]
    passes: Option<usize>,
    /// Let a token that the model drew skip further passes through these layers once the entropy of the next token is below so many
    /// nats, such as 0.5; 0 for never. Tokens of prompts take all passes.
    #[arg(long, value_name = "NATS", env = "NANOTERN_EXIT_ENTROPY", allow_negative_numbers = true)]
    exit_entropy: Option<f32>,
    /// Let the first further head of a model that has some draft tokens, which the next step checks (on the CPU). The text is the
    /// same.
    #[arg(long)]
    speculate: bool,
    /// Do not round the inputs of ternary layers to 8 bits: for models that were trained so, such as TriLM. Their weights then take 16
    /// bits.
    #[arg(long)]
    keep_inputs: bool,
    /// If the newest checkpoint of the run cannot be read, use an older one.
    #[arg(long)]
    allow_older: bool,
}

/// The path of a model. What the hub has is downloaded, unless the cache has it.
pub fn local(path: &Path) -> Result<PathBuf> {
    match path.to_str().map(Source::parse).transpose()?.flatten() {
        Some(source) => Hub::from_env()?.get(&source, &mut |line| say(line)),
        None => Ok(path.to_path_buf()),
    }
}

/// Reads a checkpoint, or the newest one of a run; says what is wrong with those that were passed over.
pub fn checkpoint(dir: &Path, allow_older: bool) -> Result<(ModelFile, ReadFrom)> {
    let (file, read) = ModelFile::from_checkpoint(dir, allow_older)?;
    read.skipped.iter().for_each(|skipped| say(skipped));
    Ok((file, read))
}

/// Reads a model from anything that holds one; of a checkpoint or a run also says which it was.
pub fn read(path: &Path, allow_older: bool) -> Result<(ModelFile, Option<ReadFrom>)> {
    if path.is_dir() && !hf::is_folder(path) {
        return checkpoint(path, allow_older).map(|(file, read)| (file, Some(read)));
    }
    Ok((ModelFile::open(path)?, None))
}

#[derive(clap::Args)]
pub struct ContextArgs {
    /// Most tokens that the model sees at once, of a prompt and its answer; by default what the model was made for, up to 4096.
    #[arg(long, env = "NANOTERN_CONTEXT")]
    context: Option<usize>,
}

impl ContextArgs {
    /// Limits the context of a model; returns it.
    pub fn limit(&self, file: &mut ModelFile) -> Result<usize> {
        if self.context == Some(0) {
            return Err(Error::usage("--context 0: at least 1 is possible"));
        }
        let options = EngineOptions { context: self.context.unwrap_or(0), ..EngineOptions::default() };
        let (context, longest) = (options.context_of(&file.config)?, file.config.seq_len);
        if self.context.is_none() && context < longest {
            say(&format!(
                "the context is limited to {context} tokens; with --context {longest} it is all that the model has"
            ));
        }
        file.config.seq_len = context;
        Ok(context)
    }
}

impl ModelArgs {
    /// Opens the model; also returns its path.
    pub fn open(&self) -> Result<(ModelFile, PathBuf)> {
        self.open_again().map(|(file, path, _)| (file, path))
    }

    /// [`ModelArgs::open`], with the flags that open the same model once more: of a run the same checkpoint.
    pub fn open_again(&self) -> Result<(ModelFile, PathBuf, ModelArgs)> {
        let path = match &self.model {
            Some(path) => local(path)?,
            None => newest_run(Path::new("runs"))?,
        };
        let mut same = ModelArgs { model: Some(path.clone()), ..self.clone() };
        let (mut file, from) = read(&path, self.allow_older)?;
        if let Some(from) = from {
            say(&format!("checkpoint {} (step {})", from.dir.display(), from.step));
            same.model = Some(from.dir);
        }
        if let Some(path) = &self.mhc {
            file.set_mhc(MhcFile::open(path)?).map_err(|what| Error::invalid(path, what))?;
        }
        if let Some(path) = &self.tokenizer {
            file.set_tokenizer(&Tokenizer::load(path)?).map_err(|what| Error::invalid(path, what))?;
        }
        if let Some(passes) = self.passes {
            file.config.set_passes(passes)?;
        }
        if self.keep_inputs {
            file.keep_inputs()?;
        }
        if !self.speculate {
            file.remove_further_heads();
        }
        if let Some(nats) = self.exit_entropy {
            file.config.set_exit_entropy(nats)?;
        }
        if file.text.add_eos {
            say(
                "note: the model's file asks for an end token after every text (add_eos_token); none is added, for texts go on",
            );
        }
        Ok((file, path, same))
    }
}
