//! The configuration of a run: sections `[model]`, `[data]`, `[train]` and `[optim]` of a TOML file. Unknown keys are errors.

use crate::data::DataConfig;
use crate::graph::Precision;
use crate::model::{ALIGN, Embeddings, Form, ModelConfig, Quantize, Role, Scales, Weight};
use crate::ops::{MAX_TRAINED_HEAD_DIM, StateForm};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
#[cfg(feature = "native")]
use {
    crate::checkpoint::Checkpoint,
    crate::data::OF_MODEL,
    crate::files::{Links, path_of, path_text, read_utf8},
    crate::model::Preset,
    crate::tokenizer::MAX_VOCAB,
    std::path::{Path, PathBuf},
};

/// The resolved configuration of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on.
    pub data: DataConfig,
    /// How long, and what is written meanwhile.
    pub train: TrainConfig,
    /// How parameters are updated.
    pub optim: OptimConfig,
}

/// The `[train]` section of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Sequences in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches whose gradients make one step.
    pub grad_accum: usize,
    /// Tokens in a sequence, up to those of the model's context; without it, as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Steps between lines of the log.
    pub log_interval: u64,
    /// Steps between evaluations; 0 evaluates at the end only.
    pub eval_interval: u64,
    /// Largest number of windows of the validation split that an evaluation reads.
    pub eval_windows: usize,
    /// Steps between checkpoints; 0 saves at the end only.
    pub checkpoint_interval: u64,
    /// Checkpoints kept besides the final one.
    pub keep_last_checkpoints: usize,
    /// Recompute layers in the backward pass instead of keeping their activations.
    pub recompute: bool,
    /// How exactly the products of the backward pass are computed. The forward pass and the optimizer do not depend on it.
    pub precision: Precision,
    /// How much the losses of all further heads count together, beside that of the head, whose weight is 1. How many there are
    /// is `model.mtp`.
    pub mtp_weight: f32,
    /// How much the entropy of what the head predicts counts: the loss is less by so many times its mean, in nats. 0: not at all.
    pub entropy_weight: f32,
    /// The share of each sequence's tokens, those with the smallest losses, that the head does not learn. 0: it learns all.
    pub token_filter: f32,
    /// Seed of the initial weights and of the order of the data.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            batch_size: 8,
            grad_accum: 1,
            seq_len: None,
            total_steps: 600,
            log_interval: 10,
            eval_interval: 100,
            eval_windows: 500,
            checkpoint_interval: 100,
            keep_last_checkpoints: 3,
            recompute: false,
            precision: Precision::Exact,
            mtp_weight: 0.3,
            entropy_weight: 0.0,
            token_filter: 0.0,
            seed: 0,
        }
    }
}

/// The optimizer of all weights except the matrices within layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aux {
    /// Loshchilov & Hutter 2019.
    #[default]
    AdamW,
    /// Chen et al. 2023.
    Lion,
}

/// The `[optim]` section of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Learning rate of Muon, which updates the matrices within layers.
    pub muon_lr: f32,
    /// Momentum of Muon.
    pub muon_momentum: f32,
    /// Newton-Schulz iterations of Muon.
    pub muon_steps: usize,
    /// Optimizer of embedding, head, norms and residual mixing.
    pub aux: Aux,
    /// Its learning rate.
    pub aux_lr: f32,
    /// How the state of both optimizers is held: `f32`, `bf16` or `int8`, with 1/2 and 27/100 of the memory.
    pub state: StateForm,
    /// Weight decay of the matrices within layers.
    pub weight_decay: f32,
    /// Global gradient norm above which gradients are scaled down; 0 never scales.
    pub clip: f32,
    /// A step is skipped if its gradient norm exceeds this many times both its running mean and the clip. With 0, only a
    /// step that is not finite is skipped.
    pub outlier_factor: f32,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Last part of the run, from 0 to 1, in which the learning rate falls linearly to 0.
    pub decay_fraction: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        OptimConfig {
            muon_lr: 0.02,
            muon_momentum: 0.95,
            muon_steps: 3,
            aux: Aux::AdamW,
            aux_lr: 3e-3,
            state: StateForm::F32,
            weight_decay: 0.0,
            clip: 1.0,
            outlier_factor: 20.0,
            warmup_steps: 20,
            decay_fraction: 0.5,
        }
    }
}

impl OptimConfig {
    /// Steps of `total` in which the learning rate falls.
    pub(super) fn decay_steps(&self, total: u64) -> u64 {
        (total as f64 * self.decay_fraction).round_ties_even() as u64
    }

    /// Learning-rate factor of update `step` (from 0) of `total`: warm-up, stable, decay (WSD, Hu et al. 2024).
    pub fn schedule(&self, step: u64, total: u64) -> f64 {
        let decay = self.decay_steps(total);
        let warm = if step < self.warmup_steps { (step + 1) as f64 / self.warmup_steps as f64 } else { 1.0 };
        let left = total.saturating_sub(step);
        if left <= decay { warm.min(left as f64 / decay as f64) } else { warm }
    }
}

impl Config {
    /// Tokens in a sequence.
    pub fn seq_len(&self) -> usize {
        self.train.seq_len.unwrap_or(self.model.seq_len)
    }

    /// Reads a preset (by default the tiny one) or a TOML file, and applies overrides (`section.key`, value). Relative paths
    /// in the file start from its folder. They become absolute.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Invalid`] for a file that cannot be read; [`Error::Usage`] names a key and its limit.
    #[cfg(feature = "native")]
    pub fn load(from: Option<&Path>, overrides: &[(String, toml::Value)]) -> Result<Config> {
        let (table, base) = Config::table(from.unwrap_or(Path::new("tiny")))?;
        Config::resolve(table, &base, from, overrides)
    }

    /// [`Config::load`] for a model that is there. Overrides may change its keys. `defaults` are used where the file has no such key.
    ///
    /// # Errors
    /// As [`Config::load`], and for a preset or a file that describes a model too.
    #[cfg(feature = "native")]
    pub fn load_for(
        model: &ModelConfig,
        defaults: &[(String, toml::Value)],
        from: Option<&Path>,
        overrides: &[(String, toml::Value)],
    ) -> Result<Config> {
        let (given, base) = from.map(Config::table).transpose()?.unwrap_or_default();
        if let Some(from) = from.filter(|_| given.contains_key("model")) {
            let from = from.display();
            return Err(Error::usage(format!(
                "--config {from} describes a model, but --init has one: leave out [model]; --set model.KEY=VALUE changes a key"
            )));
        }
        let model = toml::Table::try_from(model).map_err(|e| Error::usage(e.to_string()))?;
        let mut table = toml::Table::from_iter([("model".to_string(), model.into())]);
        for (key, value) in defaults {
            set(&mut table, key, value.clone())?;
        }
        for (section, keys) in given {
            match (table.get_mut(&section), keys) {
                (Some(toml::Value::Table(own)), toml::Value::Table(keys)) => own.extend(keys),
                (_, keys) => drop(table.insert(section, keys)),
            }
        }
        Config::resolve(table, &base, from, overrides)
    }

    /// The table of a preset or a file, and the folder of which paths in it are relative.
    #[cfg(feature = "native")]
    fn table(path: &Path) -> Result<(toml::Table, PathBuf)> {
        Ok(match path.to_str().and_then(Preset::find) {
            Some(preset) => (preset_table(preset)?, PathBuf::new()),
            None => {
                let text = read_utf8(path, Links::Follow, Config::MAX_BYTES).map_err(|e| match e {
                    Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => unknown_config(path),
                    e => e,
                })?;
                let table = text.parse::<toml::Table>().map_err(|e| Error::invalid(path, e.to_string()))?;
                (table, path.parent().unwrap_or(Path::new("")).to_path_buf())
            }
        })
    }

    /// The configuration of a table that was read from `from`.
    #[cfg(feature = "native")]
    fn resolve(
        mut table: toml::Table,
        base: &Path,
        from: Option<&Path>,
        overrides: &[(String, toml::Value)],
    ) -> Result<Config> {
        for (key, value) in overrides {
            set(&mut table, key, value.clone())?;
        }
        let mut config: Config = table.try_into().map_err(|e: toml::de::Error| {
            let name = from.map_or("configuration".into(), Path::to_string_lossy);
            Error::usage(format!("{name}: {}", e.to_string().trim()))
        })?;
        config.check()?;
        for path in [&mut config.data.path, &mut config.data.val_path].into_iter().flatten() {
            *path = absolute(base, path)?;
        }
        if !["bpe", "bytes", OF_MODEL].contains(&config.data.tokenizer.as_str()) {
            config.data.tokenizer = path_text(&absolute(base, &path_of(&config.data.tokenizer))?).into_owned();
        }
        Ok(config)
    }

    /// Most bytes of a file.
    #[cfg(feature = "native")]
    pub(super) const MAX_BYTES: u64 = 1 << 20;

    /// The configuration that a checkpoint was saved with, which is as strictly checked as one that is given.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the key and the limit.
    #[cfg(feature = "native")]
    pub fn saved(checkpoint: &Checkpoint) -> Result<Config> {
        let wrong = |what: String| Error::invalid(&checkpoint.dir.join("meta.json"), format!("config: {what}"));
        let config: Config = Deserialize::deserialize(&checkpoint.meta.config).map_err(|e| wrong(e.to_string()))?;
        config.check().map_err(|e| wrong(e.to_string()))?;
        Ok(config)
    }

    /// Splits `section.key=value`. The value is TOML if it can be read as such, otherwise a string.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no `=`.
    pub fn parse_override(item: &str) -> Result<(String, toml::Value)> {
        let bad = || Error::usage(format!("--set {item}: write section.key=value, such as optim.muon_lr=0.02"));
        let (key, value) = item.split_once('=').ok_or_else(bad)?;
        let value = value.trim();
        let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
        Ok((key.trim().to_string(), parsed.unwrap_or_else(|| toml::Value::String(value.to_string()))))
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// [`Error::Usage`] names the key and the limit.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        let fail = |what: String| Err(Error::Usage(what));
        if self.model.embeddings == Embeddings::Q8_0 {
            return fail(
                "[model] embeddings = q8_0: tables are trained as f16 or f32, and rounded by `nanotern export`".into(),
            );
        }
        // A table is a tensor by itself.
        let shares = |weight: &Weight| weight.role == Role::Matrix && matches!(weight.form, Form::Ternary { .. });
        let apart = |weight: &Weight| weight.shape.len() == 2 && weight.shape[0].is_multiple_of(ALIGN);
        let weights = || self.model.weights(1).into_iter().find(|weight| shares(weight) && !apart(weight));
        if self.model.scales == Scales::Tensor
            && let Some(weight) = weights()
        {
            let (name, shape) = (&weight.name, &weight.shape);
            return fail(format!(
                "[model] scales = tensor: {name} is {shape:?}: it is trained for matrices of a multiple of {ALIGN} outputs, and not \
                 for experts"
            ));
        }
        if self.model.quantize == Quantize::F16 || !self.model.dense.is_empty() {
            return fail("[model] quantize = f16 and dense: matrices are trained as ternary or f32".into());
        }
        if self.model.head_dim() > MAX_TRAINED_HEAD_DIM {
            let head = self.model.head_dim();
            return fail(format!("[model] heads of {head} values: those of up to {MAX_TRAINED_HEAD_DIM} are trained"));
        }
        let t = &self.train;
        for (key, value, limit) in [
            ("batch_size", t.batch_size as u64, 65_536),
            ("grad_accum", t.grad_accum as u64, 65_536),
            ("total_steps", t.total_steps, 1 << 40),
            ("log_interval", t.log_interval, 1 << 40),
            ("eval_windows", t.eval_windows as u64, u64::MAX),
        ] {
            if value == 0 || value > limit {
                return fail(format!("[train] {key} = {value}: between 1 and {limit} is possible"));
            }
        }
        if let Some(seq_len) = t.seq_len.filter(|len| !(1..=self.model.seq_len).contains(len)) {
            let most = self.model.seq_len;
            return fail(format!("[train] seq_len = {seq_len}: between 1 and model.seq_len = {most} is possible"));
        }
        if !(t.mtp_weight > 0.0 && t.mtp_weight <= 10.0) {
            return fail(format!("[train] mtp_weight = {}: above 0, up to 10 is possible", t.mtp_weight));
        }
        if !(0.0..=10.0).contains(&t.entropy_weight) {
            return fail(format!("[train] entropy_weight = {}: between 0 and 10 is possible", t.entropy_weight));
        }
        if !(0.0..1.0).contains(&t.token_filter) {
            return fail(format!("[train] token_filter = {}: from 0 to below 1 is possible", t.token_filter));
        }
        #[cfg(feature = "native")] // the data of a browser are text
        if let Some(size) = self.data.vocab_size.filter(|size| !(1..=MAX_VOCAB).contains(size)) {
            return fail(format!("[data] vocab_size = {size}: between 1 and {MAX_VOCAB} is possible"));
        }
        let m = &self.model;
        let values = t.batch_size as u64 * self.seq_len() as u64 * m.widest() as u64;
        if values > MAX_VALUES {
            return fail(format!(
                "[train] batch_size = {} of seq_len = {}: {values} values a layer, at most {MAX_VALUES} are possible; \
                 grad_accum makes a step larger instead",
                t.batch_size,
                self.seq_len()
            ));
        }
        let o = &self.optim;
        for (key, value) in [
            ("muon_lr", o.muon_lr),
            ("aux_lr", o.aux_lr),
            ("weight_decay", o.weight_decay),
            ("clip", o.clip),
            ("outlier_factor", o.outlier_factor),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return fail(format!("[optim] {key} = {value}: must be a number of at least 0"));
            }
        }
        if !(0.0..1.0).contains(&o.muon_momentum) || !(1..=20).contains(&o.muon_steps) {
            return fail(format!("[optim] muon_momentum = {}, muon_steps = {}", o.muon_momentum, o.muon_steps));
        }
        if !(0.0..=1.0).contains(&o.decay_fraction) {
            return fail(format!("[optim] decay_fraction = {}: between 0 and 1 is possible", o.decay_fraction));
        }
        Ok(())
    }
}

/// Largest number of elements of a tensor. Shaders and kernels count elements in 32 bits.
pub(super) const MAX_VALUES: u64 = 1 << 31;

#[cfg(feature = "native")]
fn unknown_config(name: &Path) -> Error {
    let presets: Vec<&str> = crate::model::PRESETS.iter().map(|p| p.name).collect();
    let name = name.display();
    Error::usage(format!("--config {name}: no such file, and no such preset ({})", presets.join(", ")))
}

#[cfg(feature = "native")]
fn preset_table(preset: &Preset) -> Result<toml::Table> {
    let config = Config { model: preset.model.clone(), ..Config::default() };
    toml::Table::try_from(&config).map_err(|e| Error::usage(e.to_string()))
}

#[cfg(feature = "native")]
fn absolute(base: &Path, path: &Path) -> Result<PathBuf> {
    std::path::absolute(base.join(path)).map_err(|e| Error::io(path, e))
}

#[cfg(feature = "native")]
fn set(table: &mut toml::Table, path: &str, value: toml::Value) -> Result<()> {
    let bad = || Error::usage(format!("{path}: a configuration key is written section.key"));
    let (sections, key) = path.rsplit_once('.').ok_or_else(bad)?;
    let section = sections.split('.').try_fold(table, |table, section| {
        table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new())).as_table_mut()
    });
    section.ok_or_else(bad)?.insert(key.to_string(), value);
    Ok(())
}
