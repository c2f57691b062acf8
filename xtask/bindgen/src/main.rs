//! `bindgen MODULE.wasm DIR` writes the module, with its JavaScript and TypeScript sides, into a folder for a browser.
//!
//! It is outside the workspace because only `cargo xtask web` needs it.

use std::env;
use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [module, dir] = &args[..] else {
        eprintln!("usage: bindgen MODULE.wasm DIR");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    // The names of functions in a panic's trace would be a quarter of the download.
    let written = bindgen.input_path(module).typescript(true).remove_name_section(true).web(true).and_then(|b| b.generate(dir));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
