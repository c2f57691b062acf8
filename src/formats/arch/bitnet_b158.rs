//! The architecture of bitnet.cpp for BitNet b1.58 2B-4T (Ma et al. 2025): relu^2, sub-norms, a tied head, half-split rotary
//! pairs. Its first files call it `bitnet-25`.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, is_stock, stock};
use crate::ops::Activation;

pub(super) struct BitnetB158;

impl Architecture for BitnetB158 {
    fn name(&self) -> &'static str {
        "bitnet-b1.58"
    }

    fn older_name(&self) -> Option<&'static str> {
        Some("bitnet-25")
    }

    fn writes(&self, config: &ModelConfig, format: Format) -> bool {
        let graph = config.activation == Activation::Relu2 && config.sub_norm && config.tie_embeddings;
        graph && config.is_ternary() && is_stock(config, format)
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        let defaults = ModelConfig { activation: Activation::Relu2, ..ModelConfig::default() };
        stock(keys, arch, defaults)
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
