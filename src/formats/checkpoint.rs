//! A model from a training checkpoint.

use super::{ModelFile, TextConfig};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::tokenizer::Tokenizer;
use std::path::Path;

impl ModelFile {
    /// Reads the checkpoint in `dir`, or the newest valid one of the run in `dir`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_checkpoint(dir: &Path) -> Result<ModelFile> {
        let saved = if dir.join("manifest.json").symlink_metadata().is_ok() {
            checkpoint::load(dir)?
        } else {
            let found = checkpoint::newest_valid(dir)?;
            found.ok_or_else(|| Error::invalid(dir, "holds no checkpoint"))?.0
        };
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
        ModelFile::from_latent(config, text, &saved.model).map_err(|what| Error::invalid(&path, what))
    }
}
