//! `bindgen MODULE.wasm DIR`: writes the module for a browser, with its JavaScript and TypeScript sides, into a folder.
//!
//! A package of its own, outside the workspace: only `cargo xtask web` needs it.

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
    // Functions without names in a trace of a panic: they are a quarter of what would be downloaded.
    let written = bindgen.input_path(module).typescript(true).remove_name_section(true).web(true).and_then(|b| b.generate(dir));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
