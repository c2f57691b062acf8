//! The architecture `qwen2` of llama.cpp, with ternary matrices: queries, keys and values have a bias, rotary pairs are half-split.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, llama_like};

pub(super) struct Qwen2;

impl Architecture for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    /// What is read as this is written as `nanotern`.
    fn writes(&self, _: &ModelConfig, _: Format) -> bool {
        false
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        llama_like(keys, arch, ModelConfig::default())
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
