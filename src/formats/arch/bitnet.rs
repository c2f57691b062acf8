//! The architecture `bitnet` of stock runtimes, for the models that they compute in the same way: sub-norms, a tied head, and heads
//! that together are as wide as the model.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, block_name, is_stock, stock};
use crate::ops::Activation;

pub(super) struct Bitnet;

impl Architecture for Bitnet {
    fn name(&self) -> &'static str {
        "bitnet"
    }

    fn writes(&self, config: &ModelConfig, format: Format) -> bool {
        let graph = config.activation == Activation::Silu && config.sub_norm && config.tie_embeddings;
        graph && config.is_ternary() && config.attention_dim() == config.dim && is_stock(config, format)
    }

    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
        stock(keys, arch, ModelConfig::default())
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
