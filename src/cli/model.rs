//! The model that a command works on.

use nanotern::Result;
use nanotern::formats::ModelFile;
use nanotern::train::newest_run;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct ModelArgs {
    /// A GGUF file, a checkpoint, or a run, of which the newest checkpoint is taken; the newest run unless given.
    #[arg(long, env = "NANOTERN_MODEL")]
    model: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the model; also says where it is.
    pub fn open(&self) -> Result<(ModelFile, PathBuf)> {
        let path = match &self.model {
            Some(path) => path.clone(),
            None => newest_run(Path::new("runs"))?,
        };
        Ok((ModelFile::open(&path)?, path))
    }
}
