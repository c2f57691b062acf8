//! The architecture `qwen3` of llama.cpp, with ternary matrices: queries and keys are normalised, rotary pairs are half-split, and
//! heads need not divide the width.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, llama_like};

pub(super) struct Qwen3;

impl Architecture for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    /// What is read as this is written as `nanotern`.
    fn writes(&self, _: &ModelConfig, _: Format) -> bool {
        false
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        llama_like(keys, arch, ModelConfig { qk_norm: true, ..ModelConfig::default() })
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
