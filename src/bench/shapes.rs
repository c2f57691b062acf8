//! Models with random weights in common sizes, generated in memory. Speed depends only on the shape, so it can be measured
//! without a model file.

use crate::formats::{Int8, ModelFile, Tensor, TensorData, Ternary, TextConfig};
use crate::model::{Form, ModelConfig, MoeOptions, Role, Scales, Weight};
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
    /// Its name for `--shape`.
    pub name: &'static str,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of the feed-forward, or of each expert.
    pub ffn: usize,
    /// Experts of a layer and of a token; none in a dense model.
    pub experts: Option<[usize; 2]>,
    /// Size of the vocabulary.
    pub vocab: usize,
}

/// The 220 M shape, and one whose tokens use as many parameters, of 522 M.
const ACTIVE: Shape =
    Shape { name: "220m", dim: 1024, layers: 16, heads: 16, kv_heads: 16, ffn: 2048, experts: None, vocab: 50_257 };
const EXPERTS: Shape = Shape { name: "520m-moe", ffn: 1024, experts: Some([8, 2]), ..ACTIVE };

/// Every shape, smallest first. The last is that of BitNet b1.58 2B4T.
#[rustfmt::skip]
pub static SHAPES: [Shape; 6] = [
    Shape { name: "18m", dim: 256, layers: 6, heads: 4, kv_heads: 4, ffn: 768, experts: None, vocab: 50_257 },
    Shape { name: "125m", dim: 768, layers: 12, heads: 12, kv_heads: 12, ffn: 2048, experts: None, vocab: 50_257 },
    ACTIVE,
    EXPERTS,
    Shape { name: "560m", dim: 1280, layers: 24, heads: 20, kv_heads: 20, ffn: 3584, experts: None, vocab: 50_257 },
    Shape { name: "2b", dim: 2560, layers: 30, heads: 20, kv_heads: 5, ffn: 6912, experts: None, vocab: 128_256 },
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
        let Shape { dim, layers, heads, kv_heads, ffn, .. } = *self;
        let (seq_len, group_size) = (CONTEXT, GROUP);
        let moe = self.experts.map(|[experts, active]| MoeOptions { experts, active, ..MoeOptions::default() });
        ModelConfig { dim, layers, heads, kv_heads, ffn, seq_len, group_size, moe, ..ModelConfig::default() }
    }

    /// A model of this shape with random weights, always the same.
    pub fn model(&self) -> ModelFile {
        random_model(self.config(), self.vocab)
    }
}

/// A model with random weights and no tokenizer.
pub fn random_model(config: ModelConfig, vocab: usize) -> ModelFile {
    let (weights, mut rng) = (config.weights(vocab), Rng::new(1));
    let tensors = weights.iter().map(|weight| Tensor::new(weight, random(weight, &mut rng))).collect();
    ModelFile { config, vocab, tensors, text: TextConfig::default() }
}

/// A norm of ones, the initial values of a router or of the bias of experts, a table of normal values, or a ternary matrix.
fn random(weight: &Weight, rng: &mut Rng) -> TensorData {
    let elements = weight.elements();
    match weight.form {
        Form::F32 if [Role::Router, Role::Balance].contains(&weight.role) => {
            TensorData::F32(weight.init.values(elements, rng))
        }
        Form::F32 => TensorData::F32(vec![1.0; elements]),
        Form::F16 => {
            let values: [f16; 256] = std::array::from_fn(|_| f16::from_f32(0.02 * rng.normal()));
            TensorData::F16(pick(&values, elements, rng))
        }
        Form::Int8 => {
            let codes = std::array::from_fn(|i| i as u8 as i8);
            TensorData::Int8(Int8 { codes: pick(&codes, elements, rng), scales: vec![2f32.powi(-12); elements / 32] })
        }
        Form::Ternary { group, scales } => {
            let (outs, dim) = weight.matrix();
            let scale = f16::from_f32(1.2 / (dim as f32).sqrt()).to_f32();
            let codes = pick(&four_codes(), outs * packed_row_bytes(dim), rng);
            let count = if scales == Scales::Tensor { 1 } else { outs * (dim / group) };
            TensorData::Ternary(Ternary { codes, scales: vec![scale; count], outs, dim, group })
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
