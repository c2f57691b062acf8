//! The architecture `bitnet` of stock runtimes, for the models that they compute in the same way: one stream, sub-norms, a
//! tied head, and groups of 256 in a registered encoding.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, stock};

pub(super) struct Bitnet;

impl Architecture for Bitnet {
    fn name(&self) -> &'static str {
        "bitnet"
    }

    fn writes(&self, config: &ModelConfig, format: Format) -> bool {
        config.is_bitnet() && format != Format::Q1_58
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        stock(keys, arch, ModelConfig::default())
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
