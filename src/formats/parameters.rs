//! A model that is trained further: its parameters, instead of what is rounded from them.

use super::{ModelFile, ReadFrom, TensorData, TextConfig, checkpoint, gguf, hf};
use crate::checkpoint::Array;
use crate::model::{Embeddings, ModelConfig};
use crate::{Error, Result};
use std::path::Path;

/// A model with its parameters.
pub struct Parameters {
    /// What the model is.
    pub config: ModelConfig,
    /// Rows of the embedding.
    pub vocab: usize,
    /// How ids are spelled.
    pub text: TextConfig,
    /// Every parameter.
    pub weights: Vec<Array>,
}

impl Parameters {
    /// Opens what [`ModelFile::open`] does. A checkpoint has the parameters, and so have some folders; those of other files are made
    /// so that their rounding is the model.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn open(path: &Path) -> Result<Parameters> {
        if hf::is_folder(path) {
            return hf::parameters(path);
        }
        if path.is_dir() {
            return Ok(Parameters::from_checkpoint(path, false)?.0);
        }
        Ok(Parameters::of(gguf::open(path)?))
    }

    /// Reads the checkpoint in `dir`, or the newest one of the run in `dir`; with `allow_older`, an older one if the newest
    /// cannot be read.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_checkpoint(dir: &Path, allow_older: bool) -> Result<(Parameters, ReadFrom)> {
        checkpoint::parameters(dir, allow_older)
    }

    /// Parameters whose rounding is this model, but for tables of 8 bits, which are trained as f16.
    fn of(file: ModelFile) -> Parameters {
        let ModelFile { config, vocab, tensors, text } = file;
        let embeddings = if config.embeddings == Embeddings::Q8_0 { Embeddings::F16 } else { config.embeddings };
        let weights = tensors.into_iter().map(|t| Array::f32(t.name, t.shape, values(&t.data))).collect();
        Parameters { config: ModelConfig { embeddings, ..config }, vocab, text, weights }
    }
}

impl ModelFile {
    /// The model of a checkpoint, which is found as [`Parameters::from_checkpoint`] does.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_checkpoint(dir: &Path, allow_older: bool) -> Result<(ModelFile, ReadFrom)> {
        let (Parameters { config, text, weights, .. }, read) = checkpoint::parameters(dir, allow_older)?;
        let wrong = |what: String| Error::invalid(&read.dir.join("model.safetensors"), what);
        let file = ModelFile::from_latent(config, text, &weights).map_err(wrong)?;
        Ok((file, read))
    }
}

/// Values whose rounding these are. The mean magnitude of a group is its scale, so what is not zero in it is larger.
pub(super) fn values(data: &TensorData) -> Vec<f32> {
    let TensorData::Ternary(t) = data else { return data.values().collect() };
    let codes: Vec<i8> = (0..t.outs * t.dim).map(|i| t.code(i / t.dim, i % t.dim)).collect();
    let group = if t.scales.len() == 1 { codes.len() } else { t.group };
    let groups = codes.chunks(group).zip(&t.scales).flat_map(|(codes, scale)| {
        let used = codes.iter().filter(|code| **code != 0).count();
        let size = f64::from(*scale) * codes.len() as f64 / used.max(1) as f64;
        codes.iter().map(move |code| (f64::from(*code) * size) as f32)
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Ternary;
    use crate::model::Scales;
    use crate::rng::Rng;

    /// A matrix that training rounds to itself: with groups of zeros, and with groups that have few values.
    #[test]
    fn rounding_gives_the_matrix_back() {
        let (outs, dim) = (6, 384);
        let mut rng = Rng::new(3);
        let latent: Vec<f32> =
            (0..outs * dim).map(|i| if i / 128 % 4 == 0 { 0.0 } else { rng.normal().powi(5) }).collect();
        for (group, of) in [(32, Scales::Group), (128, Scales::Group), (384, Scales::Tensor)] {
            let matrix = Ternary::quantize(&latent, (outs, dim), group, of);
            let again = Ternary::quantize(&values(&TensorData::Ternary(matrix.clone())), (outs, dim), group, of);
            assert_eq!(again.codes, matrix.codes);
            for (i, (again, scale)) in again.scales.iter().zip(&matrix.scales).enumerate() {
                let codes = || (i * group..(i + 1) * group).map(|k| matrix.code(k / dim, k % dim));
                let same = if of == Scales::Group { again == scale } else { (again / scale - 1.0).abs() < 2e-7 };
                assert!(same || of == Scales::Group && codes().all(|code| code == 0), "{again} for {scale}");
            }
        }
    }
}
