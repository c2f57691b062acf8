//! The flags that choose a model.

use super::say;
use nanotern::formats::ModelFile;
use nanotern::formats::mhc::MhcFile;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::newest_run;
use nanotern::{Error, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct ModelArgs {
    /// A GGUF file, a checkpoint, or a run, whose newest checkpoint is used; by default the newest run.
    #[arg(long, env = "NANOTERN_MODEL")]
    model: Option<PathBuf>,
    /// Use the residual mixing of this .mhc file instead of the model's.
    #[arg(long, value_name = "FILE", env = "NANOTERN_MHC")]
    mhc: Option<PathBuf>,
    /// Use this tokenizer.json instead of the model's tokenizer.
    // NANOTERN_TOKENIZER belongs to `train`, where it may also be `bpe` or `bytes`.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the model; also returns its path.
    pub fn open(&self) -> Result<(ModelFile, PathBuf)> {
        let path = match &self.model {
            Some(path) => path.clone(),
            None => newest_run(Path::new("runs"))?,
        };
        let mut file = ModelFile::open(&path)?;
        if let Some(path) = &self.mhc {
            file.set_mhc(MhcFile::open(path)?).map_err(|what| Error::invalid(path, what))?;
        }
        if let Some(path) = &self.tokenizer {
            file.set_tokenizer(&Tokenizer::load(path)?).map_err(|what| Error::invalid(path, what))?;
        }
        if file.text.add_eos {
            say(
                "note: the model's file asks for an end token after every text (add_eos_token); none is added, for texts go on",
            );
        }
        Ok((file, path))
    }
}
