//! `nanotern models`.

use super::out::outln;
use nanotern::Result;
use nanotern::formats::gguf;
use nanotern::formats::hf::Folder;
use nanotern::hub::{self, Found};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct ModelsArgs {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What there is to know of a model without reading its values: its parameters.
fn parameters(path: &Path) -> Result<usize> {
    if !path.is_dir() {
        return Ok(gguf::head(path)?.param_count());
    }
    let folder = Folder::open(path)?;
    Ok(folder.config.weights(folder.vocab).iter().map(|weight| weight.elements()).sum())
}

pub fn run(args: &ModelsArgs) -> Result<ExitCode> {
    let all = hub::found();
    for Found { of, name, path } in &all {
        let known = parameters(path);
        if args.json {
            let (count, why) = (known.as_ref().ok(), known.as_ref().err().map(ToString::to_string));
            let line =
                json!({ "of": of, "name": name, "path": path, "runs": why.is_none(), "parameters": count, "why": why });
            outln!("{line}")?;
            continue;
        }
        outln!(
            "{name}\n    {of}; {}",
            match known {
                Ok(count) => format!("runs: {:.1} M parameters", count as f64 * 1e-6),
                Err(why) => format!("does not run: {why}"),
            }
        )?;
    }
    if all.is_empty() && !args.json {
        outln!("no models in the cache of Hugging Face, nor in the folders of LM Studio and llama.cpp")?;
        outln!("--model hf:owner/name downloads one")?;
    }
    Ok(ExitCode::SUCCESS)
}
