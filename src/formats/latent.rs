//! From parameters in training: latent weights are quantised and tables rounded exactly as the forward pass does.

use super::{ModelFile, Tensor, TensorData, Ternary, TextConfig, mhc};
use crate::checkpoint::Array;
use crate::model::{Form, ModelConfig, Role, Weight};
use half::f16;

impl ModelFile {
    /// From the parameters of a model in training.
    ///
    /// # Errors
    /// Names the parameter that is missing, unknown, of another shape or not finite, or whose scales exceed f16.
    pub fn from_latent(config: ModelConfig, text: TextConfig, latent: &[Array]) -> Result<ModelFile, String> {
        let find = |name: &str| latent.iter().find(|t| t.name == name);
        let embed = find("embed.weight").ok_or("the tensor embed.weight is missing")?;
        let vocab = embed.shape.first().copied().unwrap_or(0);
        if !(1..=super::MAX_VOCAB).contains(&vocab) {
            return Err(format!("embed.weight has {vocab} rows: between 1 and {} are possible", super::MAX_VOCAB));
        }
        text.check(vocab)?;
        let weights = config.weights(vocab);
        if let Some(extra) = latent.iter().find(|t| !weights.iter().any(|weight| weight.name == t.name)) {
            return Err(format!("the tensor {} is unknown to the configuration", extra.name));
        }
        let tensor = |weight: &Weight| {
            let t = find(&weight.name).ok_or_else(|| format!("the tensor {} is missing", weight.name))?;
            if t.shape != weight.shape {
                return Err(format!("{} has shape {:?}; the configuration needs {:?}", t.name, t.shape, weight.shape));
            }
            t.finite()?;
            let data = serve(weight, &t.data).map_err(|what| format!("{}: {what}", weight.name))?;
            Ok(Tensor::new(weight, data))
        };
        let tensors = weights.iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(ModelFile { config, vocab, tensors, text })
    }
}

/// What the forward pass makes of latent values.
fn serve(weight: &Weight, latent: &[f32]) -> Result<TensorData, String> {
    if weight.role == Role::Mixing {
        mhc::check(latent)?;
    }
    Ok(match weight.form {
        Form::F32 => TensorData::F32(latent.to_vec()),
        Form::F16 => {
            let round = |v: &f32| f16::from_f32(cpu_kernels::ops::round_f16::round(*v));
            TensorData::F16(latent.iter().map(round).collect())
        }
        Form::Int8 => return Err("q8_0 tables are not trained".into()),
        Form::Ternary { group, scales } => {
            let ternary = Ternary::quantize(latent, weight.matrix(), group, scales);
            super::check_scales(&ternary.scales, scales)?;
            TensorData::Ternary(ternary)
        }
    })
}
