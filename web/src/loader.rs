//! Loads a model file while it arrives: each complete tensor is written to the device and dropped.

use crate::js::{Result, error, invalid_file, load_error, object};
use crate::model::Model;
use nanotern::backend::Backend;
use nanotern::formats::gguf::{Head, Stream};
use nanotern::infer::{Engine, EngineOptions};
use serde_json::json;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// A model that is being loaded.
#[wasm_bindgen]
pub struct Loader {
    backend: Rc<Backend>,
    stream: Stream,
    total: Option<u64>,
    engine: Option<Engine>,
}

impl Loader {
    pub(crate) fn new(backend: Rc<Backend>, total: Option<u64>) -> Loader {
        Loader { backend, stream: Stream::new(total), total, engine: None }
    }

    fn engine(backend: &Backend, head: &Head) -> Result<Engine> {
        let options = EngineOptions { slots: 1, context: 0 };
        Engine::empty(&head.config, head.vocab, &head.text.stop, backend, options).map_err(load_error)
    }

    /// Writes the tensors that are complete, and waits for the device so that its queue stays short.
    async fn take(&mut self) -> Result<()> {
        if self.engine.is_none()
            && let Some(head) = self.stream.head()
        {
            self.engine = Some(Self::engine(&self.backend, head)?);
        }
        if let Some(engine) = &mut self.engine {
            while let Some(tensor) = self.stream.next_tensor().map_err(invalid_file)? {
                engine.load(&tensor).map_err(load_error)?;
            }
            engine.ready().await.map_err(error)?;
        }
        Ok(())
    }
}

#[wasm_bindgen]
impl Loader {
    /// Takes the next bytes of the file.
    #[wasm_bindgen(unchecked_return_type = "LoadProgress")]
    pub async fn push(&mut self, chunk: &[u8]) -> Result<JsValue> {
        self.stream.push(chunk).map_err(invalid_file)?;
        self.take().await?;
        let parameters = self.stream.head().map(Head::param_count);
        Ok(object(&json!({ "received": self.stream.received(), "total": self.total, "parameters": parameters })))
    }

    /// Returns the model once the whole file has arrived. This consumes the loader.
    pub async fn finish(mut self) -> Result<Model> {
        self.stream.end().map_err(invalid_file)?;
        self.take().await?;
        self.stream.finish().map_err(invalid_file)?;
        let (Some(head), Some(engine)) = (self.stream.head(), self.engine) else { unreachable!("it is finished") };
        Model::new(engine, &head.text, head.vocab, head.param_count(), &self.backend)
    }
}
