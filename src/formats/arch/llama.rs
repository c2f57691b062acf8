//! The architecture `llama` of llama.cpp, with ternary matrices: Falcon3, Falcon-E, Llama3-8B-1.58, TriLM. Its files hold the two
//! halves of a rotary pair in adjacent rows.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, is_stock, llama_like};
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
        llama_like(keys, arch, ModelConfig::default())
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }

    fn pairs(&self, config: &ModelConfig, name: &str) -> Option<usize> {
        [".attn.q.", ".attn.k."].iter().any(|part| name.contains(part)).then(|| config.head_dim())
    }
}
