//! The architecture `bitnet` of stock runtimes, for the models that they compute in the same way: one stream, sub-norms, a
//! tied head, and groups of 256 in a registered encoding.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, add_options, block_name, json, standard};
use crate::model::Embeddings;

pub(super) struct Bitnet;

impl Architecture for Bitnet {
    fn name(&self) -> &'static str {
        "bitnet"
    }

    fn writes(&self, config: &ModelConfig, format: Format) -> bool {
        config.is_bitnet() && format != Format::Q1_58
    }

    /// Files of other programs leave options unsaid: the form of the tables follows from the type of the embedding.
    fn config(&self, keys: &Keys<'_, '_>) -> Result<Map<String, Json>, String> {
        let embeddings = match keys.file.tensor(&self.tensor("embed.weight")).map(|t| t.kind_name()) {
            Some(kind) if kind == "f16" => Embeddings::F16,
            Some(kind) if kind == "q8_0" => Embeddings::Q8_0,
            _ => Embeddings::F32,
        };
        let mut given = standard(keys, self.name())?;
        add_options(keys, self.name(), &mut given)?;
        let mut fields = json(&ModelConfig { group_size: 256, embeddings, ..ModelConfig::default() });
        fields.extend(given);
        Ok(fields)
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
