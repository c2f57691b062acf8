//! The architecture `nanotern`: every model of this program. Its keys have the names that llama.cpp gives the keys of other
//! architectures. Tensors are as the forward pass uses them.

use super::{Architecture, Format, Json, Keys, Map, ModelConfig, add_options, block_name, complete, standard};

pub(super) struct Nanotern;

impl Architecture for Nanotern {
    fn name(&self) -> &'static str {
        "nanotern"
    }

    fn writes(&self, _: &ModelConfig, _: Format) -> bool {
        true
    }

    fn config(&self, keys: &Keys<'_, '_>, _: &str) -> Result<Map<String, Json>, String> {
        let mut fields = standard(keys, self.name())?;
        add_options(keys, self.name(), &mut fields)?;
        complete(&fields).map_err(|field| format!("key \"nanotern.{field}\" is missing"))?;
        Ok(fields)
    }

    fn tensor(&self, name: &str) -> String {
        block_name(name)
    }
}
