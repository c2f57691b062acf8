//! A model from a training checkpoint.

use super::{Parameters, TextConfig};
use crate::checkpoint::{self, Checkpoint};
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::tokenizer::Tokenizer;
use serde::Deserialize;
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

impl TextConfig {
    /// What a checkpoint says of texts beside its tokenizer, if its run began with a model that said it.
    ///
    /// # Errors
    /// [`Error::Invalid`] names what is wrong.
    pub fn saved(checkpoint: &Checkpoint) -> Result<Option<TextConfig>> {
        let wrong = |e: serde_json::Error| Error::invalid(&checkpoint.dir.join("meta.json"), format!("text: {e}"));
        let text = checkpoint.meta.text.as_ref().map(TextConfig::deserialize).transpose().map_err(wrong)?;
        Ok(text.map(|text| TextConfig { tokenizer_json: checkpoint.tokenizer_json.clone(), ..text }))
    }
}

/// The parameters of the checkpoint in `dir`, or of that of the run in `dir`.
pub(super) fn parameters(dir: &Path, allow_older: bool) -> Result<(Parameters, ReadFrom)> {
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
    let model = saved.meta.config.get("model").ok_or_else(|| Error::invalid(&path, "has no section config.model"))?;
    let config: ModelConfig =
        Deserialize::deserialize(model).map_err(|e| Error::invalid(&path, format!("config.model: {e}")))?;
    config.check().map_err(|e| Error::invalid(&path, e.to_string()))?;
    let text = match (TextConfig::saved(&saved)?, &saved.tokenizer_json) {
        (Some(text), _) => text,
        (None, Some(json)) => {
            let path = saved.dir.join("tokenizer.json");
            TextConfig::new(&Tokenizer::from_json(json).map_err(|e| Error::invalid(&path, e.to_string()))?)
        }
        (None, None) => TextConfig::default(),
    };
    let embed = saved.model.iter().find(|t| t.name == "embed.weight");
    let vocab = embed.and_then(|t| t.shape.first()).copied().unwrap_or(0);
    Ok((Parameters { config, vocab, text, weights: saved.model }, read))
}
