//! A model file on its way to the device: each tensor is written there as soon as it has come, and dropped.

use crate::js::{Result, error, invalid_file, object};
use crate::model::Model;
use nanotern::backend::Backend;
use nanotern::formats::gguf::{Head, Stream};
use nanotern::infer::{Engine, EngineOptions};
use serde::Serialize;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
pub struct Loader {
    backend: Rc<Backend>,
    stream: Stream,
    total: Option<u64>,
    engine: Option<Engine>,
}

#[derive(Serialize)]
struct Progress {
    received: u64,
    total: Option<u64>,
    parameters: Option<usize>,
}

impl Loader {
    pub(crate) fn new(backend: Rc<Backend>, total: Option<u64>) -> Loader {
        Loader { backend, stream: Stream::new(total), total, engine: None }
    }

    fn engine(backend: &Backend, head: &Head) -> Result<Engine> {
        let options = EngineOptions { slots: 1, context: 0 };
        Engine::empty(&head.config, head.vocab, &head.text.stop, backend, options).map_err(error)
    }

    /// Hands on what has come, and waits for the device, so that it is never far behind.
    async fn take(&mut self) -> Result<()> {
        if self.engine.is_none()
            && let Some(head) = self.stream.head()
        {
            self.engine = Some(Self::engine(&self.backend, head)?);
        }
        if let Some(engine) = &mut self.engine {
            while let Some(tensor) = self.stream.next_tensor().map_err(invalid_file)? {
                engine.load(&tensor).map_err(error)?;
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
        Ok(object(&Progress { received: self.stream.received(), total: self.total, parameters }))
    }

    /// The model, once all of the file has come. The loader is used up.
    pub async fn finish(mut self) -> Result<Model> {
        self.stream.end().map_err(invalid_file)?;
        self.take().await?;
        self.stream.finish().map_err(invalid_file)?;
        let (Some(head), Some(engine)) = (self.stream.head(), self.engine) else { unreachable!("it is finished") };
        Model::new(engine, &head.text, head.vocab, head.param_count(), &self.backend)
    }
}
