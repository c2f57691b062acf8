//! The architecture `llama` of llama.cpp, with ternary matrices: Falcon3, Falcon-E, Llama3-8B-1.58, TriLM. Its files hold the two
//! halves of a rotary pair in adjacent rows. The head is the embedding where it is not a tensor of its own.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, is_stock, stock};
use crate::ops::Activation;

pub(super) struct Llama;

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn writes(&self, config: &ModelConfig, format: Format) -> bool {
        config.activation == Activation::Silu && !config.sub_norm && is_stock(config, format)
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        let tie_embeddings = keys.file.tensor(&self.tensor("head.weight")).is_none();
        stock(keys, arch, ModelConfig { sub_norm: false, tie_embeddings, ..ModelConfig::default() })
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }

    fn pairs(&self, config: &ModelConfig, name: &str) -> Option<usize> {
        [".attn.q.", ".attn.k."].iter().any(|part| name.contains(part)).then(|| config.head_dim())
    }
}
