//! Where things run: WebGPU, or the CPU with the kernels of this module.

use crate::js::{Result, error, object};
use crate::loader::Loader;
use crate::train::TrainSession;
use nanotern::Error;
use nanotern::backend::{Backend, Cpu, Level, Wgpu};
use serde::Serialize;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// An open device.
#[wasm_bindgen]
pub struct Runtime {
    backend: Rc<Backend>,
    /// Why `auto` did not take WebGPU.
    note: Option<String>,
}

fn cpu() -> Result<Backend> {
    Cpu::new(Level::detect(), Some(1)).map(Backend::Cpu).map_err(error)
}

/// The name that JavaScript knows a backend by.
pub fn name(backend: &Backend) -> &'static str {
    match backend {
        Backend::Wgpu(_) => "webgpu",
        _ => "cpu", // a browser has no third
    }
}

#[derive(Serialize)]
struct Refused {
    op: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Difference {
    node: usize,
    op: &'static str,
    output: String,
    error: f64,
}

#[wasm_bindgen]
impl Runtime {
    /// Opens `webgpu`, `cpu`, or with `auto` WebGPU where there is a GPU behind it and else the CPU.
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

    /// `webgpu` or `cpu`.
    #[wasm_bindgen(getter, unchecked_return_type = "Backend")]
    pub fn backend(&self) -> String {
        name(&self.backend).to_string()
    }

    /// The backend in words.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        self.backend.describe()
    }

    /// Why `auto` did not take WebGPU.
    #[wasm_bindgen(getter)]
    pub fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// Takes a GGUF file of `total` bytes as it comes; a compressed response, or one in pieces, does not tell.
    pub fn load(&self, total: Option<f64>) -> Loader {
        Loader::new(Rc::clone(&self.backend), total.map(|total| total as u64))
    }

    /// Prepares to train a model on a text, byte by byte.
    pub async fn train(
        &self,
        text: &str,
        #[wasm_bindgen(unchecked_param_type = "TrainConfig | undefined")] config: JsValue,
    ) -> Result<TrainSession> {
        TrainSession::new(Rc::clone(&self.backend), text, &config).await
    }

    /// Compiles every shader there is; those that the browser refuses.
    #[wasm_bindgen(js_name = checkShaders, unchecked_return_type = "{ op: string, message: string }[]")]
    pub async fn check_shaders(&self) -> JsValue {
        let refused = match &*self.backend {
            Backend::Wgpu(wgpu) => wgpu.check_shaders(nanotern::ops::TABLE).await,
            _ => Vec::new(),
        };
        object(&refused.into_iter().map(|(op, message)| Refused { op, message }).collect::<Vec<_>>())
    }

    /// Runs a training step of a small model op by op here and on the scalar reference; the outputs that differ.
    #[wasm_bindgen(js_name = selfTest, unchecked_return_type = "Difference[]")]
    pub async fn self_test(&self) -> Result<JsValue> {
        let found = nanotern::train::self_test(&self.backend).await.map_err(error)?;
        let plain = found.into_iter().map(|d| Difference { node: d.node, op: d.op, output: d.output, error: d.error });
        Ok(object(&plain.collect::<Vec<_>>()))
    }
}
