//! The architecture `llama` of llama.cpp, with ternary matrices: Falcon3, Falcon-E, Llama3-8B-1.58, TriLM. Its files hold the two
//! halves of a rotary pair in adjacent rows.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, llama_like};

pub(super) struct Llama;

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
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

    fn has_adjacent_pairs(&self) -> bool {
        true
    }
}
