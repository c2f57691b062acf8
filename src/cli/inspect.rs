//! `nanotern inspect`.

use nanotern::Result;
use nanotern::train::checkpoint;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct InspectArgs {
    /// A checkpoint directory.
    path: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let saved = checkpoint::load(&args.path)?;
    let parameters: usize = saved.model.iter().map(|t| t.data.len()).sum();
    let shapes = saved.model.iter().map(|t| (t.name.clone(), serde_json::json!(t.shape))).collect();
    if args.json {
        let tensors = serde_json::Value::Object(shapes);
        println!("{}", serde_json::json!({ "meta": saved.meta, "parameters": parameters, "tensors": tensors }));
        return Ok(ExitCode::SUCCESS);
    }
    let loss = |l: Option<f64>| l.map_or("not measured".to_string(), |l| format!("{l:.4} nats/token"));
    println!("checkpoint  {} (intact)", args.path.display());
    println!("step        {} ({} tokens, {} skipped)", saved.meta.step, saved.meta.tokens, saved.meta.skipped_steps);
    println!("loss        training {}, validation {}", loss(saved.meta.train_loss), loss(saved.meta.val_loss));
    println!("parameters  {parameters}");
    println!("tokenizer   {}", saved.meta.tokenizer_hash.as_deref().unwrap_or("none"));
    for (section, keys) in saved.meta.config.as_object().into_iter().flatten() {
        let keys = keys.as_object().into_iter().flatten().map(|(k, v)| format!("{k} = {v}"));
        println!("[{section}]  {}", keys.collect::<Vec<_>>().join(", "));
    }
    for t in &saved.model {
        println!("  {:32} {:?}", t.name, t.shape);
    }
    Ok(ExitCode::SUCCESS)
}
