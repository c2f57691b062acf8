//! A model from a training checkpoint.

use super::{ModelFile, TextConfig};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// The checkpoint that a model was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFrom {
    /// Its folder.
    pub dir: PathBuf,
    /// Its completed steps.
    pub step: u64,
    /// What is wrong with each newer checkpoint of the run.
    pub skipped: Vec<String>,
}

impl ModelFile {
    /// Reads the checkpoint in `dir`, or the newest one of the run in `dir`; with `allow_older`, an older one if the newest
    /// cannot be read.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_checkpoint(dir: &Path, allow_older: bool) -> Result<(ModelFile, ReadFrom)> {
        let (saved, skipped) = if dir.join("manifest.json").symlink_metadata().is_ok() {
            (checkpoint::load_model(dir)?, Vec::new())
        } else {
            let found = checkpoint::newest_model(dir)?;
            found.ok_or_else(|| Error::invalid(dir, "holds no checkpoint"))?
        };
        if let [newest, ..] = &skipped[..]
            && !allow_older
        {
            let what = format!("{newest}\n--allow-older uses an older one: step {}", saved.meta.step);
            return Err(Error::invalid(dir, what));
        }
        let read = ReadFrom { dir: saved.dir.clone(), step: saved.meta.step, skipped };
        let path = saved.dir.join("meta.json");
        let model =
            saved.meta.config.get("model").ok_or_else(|| Error::invalid(&path, "has no section config.model"))?;
        let config: ModelConfig =
            serde::Deserialize::deserialize(model).map_err(|e| Error::invalid(&path, format!("config.model: {e}")))?;
        config.check().map_err(|e| Error::invalid(&path, e.to_string()))?;
        let text = match &saved.tokenizer_json {
            Some(json) => {
                let path = saved.dir.join("tokenizer.json");
                TextConfig::new(&Tokenizer::from_json(json).map_err(|e| Error::invalid(&path, e.to_string()))?)
            }
            None => TextConfig::default(),
        };
        let path = saved.dir.join("model.safetensors");
        let file = ModelFile::from_latent(config, text, &saved.model).map_err(|what| Error::invalid(&path, what))?;
        Ok((file, read))
    }
}
