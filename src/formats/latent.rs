//! From parameters in training: latent weights are quantised and tables rounded exactly as the forward pass does.

use super::{Encoding, ModelFile, Spec, Tensor, TensorData, Ternary, TextConfig, mhc, specs};
use crate::checkpoint::Array;
use crate::model::ModelConfig;
use half::f16;

impl ModelFile {
    /// From the parameters of a model in training.
    pub fn from_latent(config: ModelConfig, text: TextConfig, latent: &[Array]) -> Result<ModelFile, String> {
        let find = |name: &str| latent.iter().find(|t| t.name == name);
        let embed = find("embed.weight").ok_or("the tensor embed.weight is missing")?;
        let vocab = embed.shape.first().copied().unwrap_or(0);
        if !(1..=super::MAX_VOCAB).contains(&vocab) {
            return Err(format!("embed.weight has {vocab} rows: between 1 and {} are possible", super::MAX_VOCAB));
        }
        text.check(vocab)?;
        let wanted = specs(&config, vocab);
        if let Some(extra) = latent.iter().find(|t| !wanted.iter().any(|spec| spec.name == t.name)) {
            return Err(format!("the tensor {} is unknown to the configuration", extra.name));
        }
        let tensor = |spec: &Spec| {
            let t = find(&spec.name).ok_or_else(|| format!("the tensor {} is missing", spec.name))?;
            if t.shape != spec.shape {
                return Err(format!("{} has shape {:?}; the configuration needs {:?}", t.name, t.shape, spec.shape));
            }
            serve(spec, &t.data, config.mhc_streams).map_err(|what| format!("{}: {what}", spec.name))
        };
        let tensors = wanted.iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(ModelFile { config, vocab, tensors, text })
    }
}

/// What the forward pass makes of latent values.
fn serve(spec: &Spec, latent: &[f32], streams: usize) -> Result<Tensor, String> {
    if let Some(i) = latent.iter().position(|v| !v.is_finite()) {
        return Err(format!("value {i} is {}: not a finite number", latent[i]));
    }
    let data = match spec.encoding {
        Encoding::F32 => TensorData::F32(latent.to_vec()),
        Encoding::F16 => {
            TensorData::F16(latent.iter().map(|v| f16::from_f32(cpu_kernels::ops::round_f16::round(*v))).collect())
        }
        Encoding::Q8_0 => return Err("q8_0 tables are not trained".into()),
        Encoding::Ternary { group } => {
            let ternary = Ternary::quantize(latent, spec.shape[0], spec.shape[1], group);
            super::check_scales(&ternary.scales)?;
            TensorData::Ternary(ternary)
        }
    };
    if let (TensorData::F32(params), true) = (&data, spec.name.ends_with(".mhc")) {
        mhc::check(params, streams)?;
    }
    Ok(Tensor { name: spec.name.clone(), shape: spec.shape.clone(), data })
}
