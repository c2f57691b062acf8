//! What a model can be written as.

use super::gguf::{Format, file_bytes};
use super::hf::{self, Matrices};
use super::{ModelFile, TensorData, Ternary, arch};
use crate::model::{Form, ModelConfig, Role, Scales};
use crate::{Error, Result};
use half::{bf16, f16};
use std::fmt;
use std::path::Path;

/// A GGUF file with one of its encodings of ternary matrices, or a folder as Hugging Face has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file.
    Gguf(Format),
    /// A folder.
    Folder(Matrices),
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 6] = [
        Target::Gguf(Format::Q1_58),
        Target::Gguf(Format::Tq2_0),
        Target::Gguf(Format::Tq1_0),
        Target::Gguf(Format::I2S),
        Target::Folder(Matrices::Packed),
        Target::Folder(Matrices::Bf16),
    ];
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Gguf(format) => format.fmt(f),
            Target::Folder(Matrices::Packed) => f.write_str("hf-packed"),
            Target::Folder(Matrices::Bf16) => f.write_str("hf-bf16"),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = Target::ALL.map(|target| target.to_string()).join(", ");
        let unknown = || format!("unknown format `{name}`: expected one of {names}");
        Target::ALL.into_iter().find(|target| target.to_string() == name).ok_or_else(unknown)
    }
}

impl ModelFile {
    /// What holds the model exactly: i2_s where a ternary matrix has one scale, otherwise q1_58.
    pub fn exact_target(&self) -> Target {
        let one = self.config.is_ternary() && self.config.scales == Scales::Tensor;
        Target::Gguf(if one { Format::I2S } else { Format::Q1_58 })
    }

    /// Gives the model the scales that the target holds. Returns what the target does not say or rounds, in words.
    ///
    /// # Errors
    /// [`Error::Usage`] when the groups of a matrix differ and the target has one scale for it, and when f16 does not hold a scale.
    pub fn fit(&mut self, target: Target) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let ternary = self.tensors.iter().any(|tensor| matches!(tensor.data, TensorData::Ternary(_)));
        match (target, self.config.scales) {
            (Target::Gguf(format), _) if !ternary => {
                notes.push(format!("the model has no ternary matrix, so {format} changes nothing"));
            }
            (Target::Gguf(Format::I2S) | Target::Folder(Matrices::Packed), Scales::Group) if ternary => {
                let config = ModelConfig { scales: Scales::Tensor, ..self.config.clone() };
                self.rescale(config, |t, _| t.merge_scales()).map_err(|what| {
                    Error::usage(format!("{target} has one scale for a matrix, but {what}; q1_58 holds the model"))
                })?;
            }
            (Target::Gguf(format), Scales::Tensor) if format != Format::I2S => {
                let worst = self.spread_scales(format)?;
                notes.extend(rounding(&format!("{format} has scales of f16, which rounds those of the model"), worst));
            }
            (Target::Folder(Matrices::Bf16), _) => {
                if self.config.is_ternary() {
                    notes.push(
                        "hf-bf16 does not say that layers round their inputs to 8 bits: what reads it does not".into(),
                    );
                }
                let values = |data: &'_ TensorData| match data {
                    TensorData::Ternary(t) => t.scales.clone(),
                    other => other.values().collect(),
                };
                let matrices = self.tensors.iter().filter(|tensor| tensor.role == Role::Matrix);
                let changes = matrices.flat_map(|t| values(&t.data)).map(|v| change(v, bf16::from_f32(v).to_f32()));
                notes.extend(rounding("bf16 rounds values of matrices", changes.fold(0.0, f64::max)));
            }
            _ => {}
        }
        Ok(notes)
    }

    /// Writes the model, as a whole or not at all. Returns the size of the file, or of all files of the folder.
    ///
    /// # Errors
    /// [`Error::Usage`] when the target cannot hold the model, [`Error::Io`] when it cannot be written, [`Error::Invalid`] when a
    /// folder of that name exists.
    pub fn save(&self, path: &Path, target: Target) -> Result<u64> {
        match target {
            Target::Gguf(format) => self.save_gguf(path, format),
            Target::Folder(matrices) => hf::save(self, path, matrices),
        }
    }

    /// Which programs can read the model once it is written, in words.
    pub fn readers(&self, target: Target) -> String {
        let Target::Gguf(format) = target else {
            let text = if self.text.tokenizer_json.is_some() { "" } else { "; it has no tokenizer" };
            return format!("nanotern and transformers{text}");
        };
        let arch = arch::of(&self.config, format).name();
        let others = match (arch, format) {
            ("nanotern", Format::Q1_58) if self.config.is_ternary() => {
                return "nanotern only: q1_58 is its own encoding".to_string();
            }
            ("nanotern", _) => {
                let what =
                    self.config.unknown_to_others().unwrap_or("a combination of options that no other program has");
                return format!("nanotern only: the model has {what}");
            }
            (_, Format::I2S) if self.config.is_ternary() => "bitnet.cpp",
            ("bitnet-b1.58", _) => "builds of llama.cpp that know this architecture",
            _ => "llama.cpp",
        };
        let text = super::gguf::lost(&self.text, self.vocab);
        format!("nanotern, and {others} as the architecture {arch}{text}")
    }

    /// Changes the scales of ternary matrices to those of another configuration. `change` gets a matrix and the size of its groups.
    fn rescale(
        &mut self,
        config: ModelConfig,
        mut change: impl FnMut(&mut Ternary, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        config.check().map_err(|e| e.to_string())?;
        for (weight, tensor) in config.weights(self.vocab).iter().zip(&mut self.tensors) {
            if let (Form::Ternary { group, .. }, TensorData::Ternary(t)) = (weight.form, &mut tensor.data) {
                change(t, group).map_err(|what| format!("{}: {what}", tensor.name))?;
                t.group = group;
            }
        }
        self.config = config;
        Ok(())
    }

    /// Gives each group of a ternary matrix the scale of the matrix, as f16. Returns the largest change, relative to a scale.
    fn spread_scales(&mut self, format: Format) -> Result<f64> {
        let groups = [256, 128, 64, 32].map(|group_size| ModelConfig {
            scales: Scales::Group,
            group_size,
            ..self.config.clone()
        });
        let fits = |config: &ModelConfig| config.check().is_ok() && file_bytes(config, self.vocab, format).is_ok();
        let config = groups.into_iter().find(fits).ok_or_else(|| {
            Error::usage(format!("{format} needs sizes that are multiples of 256; i2_s holds the model"))
        })?;
        let mut worst = 0f64;
        let half = |scale: f32| f16::from_f32(scale).to_f32();
        let spread = |t: &mut Ternary, group: usize| {
            let scale = t.scales[0];
            if half(scale).is_infinite() || half(scale) == 0.0 && scale != 0.0 {
                return Err(format!("its scale is {scale:e}, which f16 does not hold; i2_s does"));
            }
            worst = worst.max(change(scale, half(scale)));
            t.scales = vec![half(scale); t.outs * (t.dim / group)];
            Ok(())
        };
        self.rescale(config, spread).map_err(Error::Usage)?;
        Ok(worst)
    }
}

/// How much rounding changes a value, relative to it.
fn change(value: f32, rounded: f32) -> f64 {
    if value == 0.0 { 0.0 } else { (f64::from(rounded) / f64::from(value) - 1.0).abs() }
}

/// Says a rounding, if there is one.
fn rounding(what: &str, worst: f64) -> Option<String> {
    (worst > 0.0).then(|| format!("{what}, by {worst:.1e} of one at most"))
}
