//! Models with random weights in common sizes, generated in memory. Speed depends only on the shape, so it can be measured
//! without a model file.

use crate::formats::{Encoding, Int8, ModelFile, Spec, Tensor, TensorData, Ternary, TextConfig, specs};
use crate::model::ModelConfig;
use crate::ops::packed_row_bytes;
use crate::rng::Rng;
use half::f16;

/// Inputs per scale, as in GGUF's ternary encodings.
const GROUP: usize = 256;
/// Tokens in the context.
const CONTEXT: usize = 2048;

/// A named model size.
#[derive(Debug)]
pub struct Shape {
    /// Its name, such as `125m`.
    pub name: &'static str,
    /// dim, layers, heads, kv_heads, ffn.
    sizes: [usize; 5],
    /// Size of the vocabulary.
    pub vocab: usize,
}

/// Every shape, smallest first. The last is that of BitNet b1.58 2B4T.
pub static SHAPES: [Shape; 4] = [
    Shape { name: "18m", sizes: [256, 6, 4, 4, 768], vocab: 50_257 },
    Shape { name: "125m", sizes: [768, 12, 12, 12, 2048], vocab: 50_257 },
    Shape { name: "560m", sizes: [1280, 24, 20, 20, 3584], vocab: 50_257 },
    Shape { name: "2b", sizes: [2560, 30, 20, 5, 6912], vocab: 128_256 },
];

impl Shape {
    /// The shape of that name.
    ///
    /// # Errors
    /// When the name is unknown; lists the known ones.
    pub fn find(name: &str) -> Result<&'static Shape, String> {
        let names = SHAPES.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
        SHAPES.iter().find(|s| s.name == name).ok_or_else(|| format!("there is no such shape: choose {names}"))
    }

    /// The model's configuration, with a context of 2048 tokens and groups of 256 inputs.
    pub fn config(&self) -> ModelConfig {
        let [dim, layers, heads, kv_heads, ffn] = self.sizes;
        let (seq_len, group_size) = (CONTEXT, GROUP);
        ModelConfig { dim, layers, heads, kv_heads, ffn, seq_len, group_size, ..ModelConfig::default() }
    }

    /// A model of this shape with random weights, always the same.
    pub fn model(&self) -> ModelFile {
        let (config, mut rng) = (self.config(), Rng::new(1));
        let tensor = |spec: Spec| Tensor { data: random(&spec, &mut rng), name: spec.name, shape: spec.shape };
        let tensors = specs(&config, self.vocab).into_iter().map(tensor).collect();
        ModelFile { config, vocab: self.vocab, tensors, text: TextConfig::default() }
    }
}

/// Norms of ones, tables and matrices of random values.
fn random(spec: &Spec, rng: &mut Rng) -> TensorData {
    let elements = spec.shape.iter().product();
    match spec.encoding {
        Encoding::F32 => TensorData::F32(vec![1.0; elements]),
        Encoding::F16 => {
            let values: [f16; 256] = std::array::from_fn(|_| f16::from_f32(0.02 * rng.normal()));
            TensorData::F16(pick(&values, elements, rng))
        }
        Encoding::Q8_0 => {
            let codes = std::array::from_fn(|i| i as u8 as i8);
            TensorData::Int8(Int8 { codes: pick(&codes, elements, rng), scales: vec![2f32.powi(-12); elements / 32] })
        }
        Encoding::Ternary { group } => {
            let (outs, dim) = (spec.shape[0], spec.shape[1]);
            let scale = f16::from_f32(1.2 / (dim as f32).sqrt()).to_f32();
            let codes = pick(&four_codes(), outs * packed_row_bytes(dim), rng);
            TensorData::Ternary(Ternary { codes, scales: vec![scale; outs * (dim / group)], outs, dim, group })
        }
    }
}

/// 256 bytes, each with four codes of 0, 1 or 2.
fn four_codes() -> [u8; 256] {
    std::array::from_fn(|i| [1, 3, 9, 27].iter().rev().fold(0, |byte, place| byte << 2 | (i / place % 3) as u8))
}

/// `n` random elements of `values`.
fn pick<T: Copy>(values: &[T; 256], n: usize, rng: &mut Rng) -> Vec<T> {
    let bytes = (0..n.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes());
    bytes.take(n).map(|byte| values[usize::from(byte)]).collect()
}
