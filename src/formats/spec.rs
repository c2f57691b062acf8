//! Which tensors a model has: names in training and in GGUF, shapes, encodings. The list is what training declares, in
//! that order; a test holds the two together.

use crate::model::{Embeddings, ModelConfig};

/// How the forward pass uses a tensor, which is how files hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    F32,
    F16,
    /// int8 with an f16 scale for every 32 values.
    Q8_0,
    Ternary {
        /// Consecutive inputs that share a scale.
        group: usize,
    },
}

/// A tensor that a model must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// In training.
    pub name: String,
    /// In GGUF.
    pub gguf: String,
    /// Row-major; GGUF lists dimensions the other way round.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
}

/// Every tensor of a checked config.
pub fn specs(config: &ModelConfig, vocab: usize) -> Vec<Spec> {
    let (dim, ffn, kv_dim) = (config.dim, config.ffn, config.kv_heads * config.head_dim());
    let table = match config.embeddings {
        Embeddings::F16 => Encoding::F16,
        Embeddings::F32 => Encoding::F32,
        Embeddings::Q8_0 => Encoding::Q8_0,
    };
    let mut list = vec![spec("embed.weight", "token_embd.weight", &[vocab, dim], table)];
    for i in 0..config.layers {
        let mut block = Block { config, list: &mut list, train: format!("layers.{i}.attn"), gguf: format!("blk.{i}") };
        block.opening("attn");
        block.linear("q", "attn_q", dim, dim);
        block.linear("k", "attn_k", kv_dim, dim);
        block.linear("v", "attn_v", kv_dim, dim);
        block.linear("o", "attn_output", dim, dim);
        block.closing("attn", dim);
        block.train = format!("layers.{i}.ffn");
        block.opening("ffn");
        block.linear("gate", "ffn_gate", ffn, dim);
        block.linear("up", "ffn_up", ffn, dim);
        block.linear("down", "ffn_down", dim, ffn);
        block.closing("ffn", ffn);
    }
    list.push(spec("norm.weight", "output_norm.weight", &[dim], Encoding::F32));
    if !config.tie_embeddings {
        let ternary = config.is_ternary() && config.ternary_head;
        let encoding = if ternary { Encoding::Ternary { group: config.group(dim) } } else { table };
        list.push(spec("head.weight", "output.weight", &[vocab, dim], encoding));
    }
    list
}

fn spec(name: &str, gguf: &str, shape: &[usize], encoding: Encoding) -> Spec {
    Spec { name: name.to_string(), gguf: gguf.to_string(), shape: shape.to_vec(), encoding }
}

/// One sub-layer at a time.
struct Block<'a> {
    config: &'a ModelConfig,
    list: &'a mut Vec<Spec>,
    train: String,
    gguf: String,
}

impl Block<'_> {
    fn push(&mut self, name: &str, gguf: &str, shape: &[usize], encoding: Encoding) {
        let (name, gguf) = (format!("{}.{name}", self.train), format!("{}.{gguf}", self.gguf));
        self.list.push(Spec { name, gguf, shape: shape.to_vec(), encoding });
    }

    fn opening(&mut self, part: &str) {
        self.push("norm.weight", &format!("{part}_norm.weight"), &[self.config.dim], Encoding::F32);
        if self.config.mhc_streams > 1 {
            self.push("mhc", &format!("{part}_mhc"), &[self.config.mhc_params()], Encoding::F32);
        }
    }

    fn linear(&mut self, name: &str, gguf: &str, outs: usize, dim: usize) {
        let group = self.config.group(dim);
        let encoding = if self.config.is_ternary() { Encoding::Ternary { group } } else { Encoding::F32 };
        self.push(&format!("{name}.weight"), &format!("{gguf}.weight"), &[outs, dim], encoding);
    }

    fn closing(&mut self, part: &str, dim: usize) {
        if self.config.sub_norm {
            self.push("sub_norm.weight", &format!("{part}_sub_norm.weight"), &[dim], Encoding::F32);
        }
    }
}
