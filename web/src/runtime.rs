//! The device: WebGPU, or the CPU with the kernels of this module.

use crate::js::{Result, error, object};
use crate::loader::Loader;
use crate::train::TrainSession;
use nanotern::Error;
use nanotern::backend::{Backend, Cpu, Difference, Level, Wgpu};
use nanotern::infer::PARAMETERS;
use serde_json::json;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// An open device.
#[wasm_bindgen]
pub struct Runtime {
    backend: Rc<Backend>,
    /// Why `auto` did not choose WebGPU.
    note: Option<String>,
}

fn cpu() -> Result<Backend> {
    Cpu::new(Level::detect(), Some(1)).map(Backend::Cpu).map_err(error)
}

/// A backend's name in JavaScript.
pub fn name(backend: &Backend) -> &'static str {
    match backend {
        Backend::Wgpu(_) => "webgpu",
        _ => "cpu", // a browser has no other backend
    }
}

#[wasm_bindgen]
impl Runtime {
    /// Opens `webgpu` or `cpu`. `auto` opens WebGPU if it runs on a GPU, else the CPU.
    pub async fn open(choice: &str) -> Result<Runtime> {
        let (backend, note) = match choice {
            "cpu" => (cpu()?, None),
            "webgpu" => (Backend::Wgpu(Wgpu::open_default().await.map_err(error)?), None),
            "auto" => match Wgpu::open_default().await {
                Ok(wgpu) if wgpu.info().is_gpu() => (Backend::Wgpu(wgpu), None),
                Ok(_) => (cpu()?, Some("the WebGPU adapter is software, which is slower".into())),
                Err(why) => (cpu()?, Some(why.to_string())),
            },
            other => return Err(error(Error::usage(format!("backend {other}: choose auto, webgpu or cpu")))),
        };
        Ok(Runtime { backend: Rc::new(backend), note })
    }

    /// What was opened, and the table of sampling parameters.
    #[wasm_bindgen(getter, unchecked_return_type = "RuntimeInfo")]
    pub fn info(&self) -> JsValue {
        object(&json!({
            "backend": name(&self.backend),
            "device": self.backend.describe(),
            "note": self.note,
            "parameters": PARAMETERS,
        }))
    }

    /// Starts to load a GGUF file. `total` is its length in bytes, which a compressed or chunked response does not tell.
    pub fn load(&self, total: Option<f64>) -> Loader {
        Loader::new(Rc::clone(&self.backend), total.map(|total| total as u64))
    }

    /// Prepares the training of a model on the bytes of a text.
    pub async fn train(
        &self,
        text: &str,
        #[wasm_bindgen(unchecked_param_type = "TrainConfig | undefined")] config: JsValue,
    ) -> Result<TrainSession> {
        TrainSession::new(Rc::clone(&self.backend), text, &config).await
    }

    /// Compiles every shader. Returns those that the browser refuses.
    #[wasm_bindgen(js_name = checkShaders, unchecked_return_type = "{ op: string, message: string }[]")]
    pub async fn check_shaders(&self) -> JsValue {
        let refused = match &*self.backend {
            Backend::Wgpu(wgpu) => wgpu.check_shaders(&wgpu.shaders()).await,
            _ => Vec::new(),
        };
        object(&refused.iter().map(|(op, message)| json!({ "op": op, "message": message })).collect::<Vec<_>>())
    }

    /// Runs every op of a training step of a small model here and on the scalar reference. Returns the outputs that differ.
    #[wasm_bindgen(js_name = selfTest, unchecked_return_type = "Difference[]")]
    pub async fn self_test(&self) -> Result<JsValue> {
        let found = nanotern::train::self_test(&self.backend).await.map_err(error)?;
        let plain = |d: &Difference| json!({ "node": d.node, "op": d.op, "output": d.output, "error": d.error });
        Ok(object(&found.iter().map(plain).collect::<Vec<_>>()))
    }
}
