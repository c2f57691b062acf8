//! The model that a command works on.

use nanotern::formats::ModelFile;
use nanotern::formats::mhc::MhcFile;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::newest_run;
use nanotern::{Error, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct ModelArgs {
    /// A GGUF file, a checkpoint, or a run, of which the newest checkpoint is taken; the newest run unless given.
    #[arg(long, env = "NANOTERN_MODEL")]
    model: Option<PathBuf>,
    /// Take the residual mixing from this .mhc file, not from the model.
    #[arg(long, value_name = "FILE", env = "NANOTERN_MHC")]
    mhc: Option<PathBuf>,
    /// Take the tokenizer from this tokenizer.json, not from the model.
    // NANOTERN_TOKENIZER is what `train` makes one of.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the model; also says where it is.
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
        Ok((file, path))
    }
}
