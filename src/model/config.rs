//! What a model is: its shape, and the presets.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Whether linear layers are ternary with int8 activations, or plain f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    #[default]
    Ternary,
    None,
}

/// Precision of the embedding and of an f32 head: what the forward pass uses is what files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Embeddings {
    #[default]
    F16,
    F32,
    /// int8 with an f16 scale for every 32 values, as an export may round it; the head's input is int8 too. Not trained.
    #[serde(rename = "q8_0")]
    Q8_0,
}

/// Shape of a model; the vocabulary comes with the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub dim: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key-value heads; query head h reads h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Width of the gated feed-forward layer.
    pub ffn: usize,
    /// Tokens of context.
    pub seq_len: usize,
    /// Consecutive inputs that share a scale; at most the inputs of a layer.
    pub group_size: usize,
    /// Residual streams: 1 (plain), 2 or 4 (mHC-lite).
    pub mhc_streams: usize,
    /// RMSNorm before the output and down projections, as in BitNet b1.58.
    pub sub_norm: bool,
    /// The head is the embedding.
    pub tie_embeddings: bool,
    pub quantize: Quantize,
    pub embeddings: Embeddings,
    /// An untied head is ternary too.
    pub ternary_head: bool,
    pub rope_theta: f64,
    pub norm_eps: f32,
}

impl Default for ModelConfig {
    /// The tiny preset.
    fn default() -> Self {
        ModelConfig {
            dim: 256,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            ffn: 512,
            seq_len: 256,
            group_size: 128,
            mhc_streams: 1,
            sub_norm: true,
            tie_embeddings: true,
            quantize: Quantize::Ternary,
            embeddings: Embeddings::F16,
            ternary_head: false,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
        }
    }
}

/// A named shape with the vocabulary it is meant for.
pub struct Preset {
    pub name: &'static str,
    pub vocab: usize,
    /// dim, layers, heads, kv_heads, ffn, seq_len.
    shape: [usize; 6],
}

/// Every preset, smallest first.
pub const PRESETS: [Preset; 4] = [
    Preset { name: "tiny", vocab: 4096, shape: [256, 4, 4, 4, 512, 256] },
    Preset { name: "d20", vocab: 50257, shape: [256, 6, 4, 4, 768, 256] },
    Preset { name: "nano-125m", vocab: 50257, shape: [768, 12, 12, 12, 2048, 1024] },
    Preset { name: "small-560m", vocab: 50257, shape: [1280, 24, 20, 10, 4096, 1024] },
];

impl Preset {
    pub fn find(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|p| p.name == name)
    }

    pub fn model(&self) -> ModelConfig {
        let [dim, layers, heads, kv_heads, ffn, seq_len] = self.shape;
        ModelConfig { dim, layers, heads, kv_heads, ffn, seq_len, ..ModelConfig::default() }
    }
}

impl ModelConfig {
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Inputs that share a scale in a layer of `inputs` inputs.
    pub fn group(&self, inputs: usize) -> usize {
        self.group_size.min(inputs)
    }

    pub fn is_ternary(&self) -> bool {
        self.quantize == Quantize::Ternary
    }

    /// Number of parameters of one sub-layer's residual mixing.
    pub fn mhc_params(&self) -> usize {
        match self.mhc_streams {
            2 => 9,
            4 => 40,
            _ => 0,
        }
    }

    /// Refuses what cannot be built, naming the key and the limit.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Usage(format!("[model] {what}")));
        let sizes = [
            ("dim", self.dim, 16_384),
            ("layers", self.layers, 256),
            ("heads", self.heads, 256),
            ("kv_heads", self.kv_heads, 256),
            ("ffn", self.ffn, 65_536),
            ("seq_len", self.seq_len, 65_536),
            ("group_size", self.group_size, 1024),
        ];
        for (key, value, limit) in sizes {
            if !(1..=limit).contains(&value) {
                return fail(format!("{key} = {value}: between 1 and {limit} is possible"));
            }
        }
        if !self.dim.is_multiple_of(self.heads) || !self.head_dim().is_multiple_of(4) || self.head_dim() > 128 {
            return fail(format!("dim / heads = {} / {}: must be a multiple of 4 up to 128", self.dim, self.heads));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!("heads = {} must be a multiple of kv_heads = {}", self.heads, self.kv_heads));
        }
        if ![1, 2, 4].contains(&self.mhc_streams) {
            return fail(format!("mhc_streams = {}: 1, 2 or 4 is possible", self.mhc_streams));
        }
        if !self.group_size.is_multiple_of(32) {
            return fail(format!("group_size = {} must be a multiple of 32", self.group_size));
        }
        if self.ternary_head && self.tie_embeddings {
            return fail("ternary_head needs tie_embeddings = false: an embedding is not ternary".into());
        }
        if self.embeddings == Embeddings::Q8_0 && !self.dim.is_multiple_of(32) {
            return fail(format!("dim = {} must be a multiple of 32 where embeddings are q8_0", self.dim));
        }
        for (key, inputs) in [("dim", self.dim), ("ffn", self.ffn)] {
            let group = self.group(inputs);
            if self.is_ternary() && !(inputs.is_multiple_of(32) && inputs.is_multiple_of(group)) {
                return fail(format!("{key} = {inputs} must be a multiple of 32 and of group_size = {group}"));
            }
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0 && self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return fail(format!("norm_eps = {} or rope_theta = {} is out of range", self.norm_eps, self.rope_theta));
        }
        Ok(())
    }
}
