//! nanotern in a browser tab: the same library, shaders and files, with an interface for a Web Worker.
//!
//! Nothing here blocks: functions that need the device return promises. Objects hold device memory until `free()`. Every
//! error is an `Error` with a `code` (see the type `ErrorCode`).
#![cfg(target_arch = "wasm32")]

mod js;
mod loader;
mod measure;
mod model;
mod runtime;
mod train;

pub use loader::Loader;
pub use measure::Gemv;
pub use model::Model;
pub use runtime::Runtime;
pub use train::{Export, TrainSession, Weights};

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(message: &str);
}

/// Makes a panic write its message to the console before it ends the module.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| console_error(&info.to_string())));
}
