//! `nanotern serve`.

use super::model::{ContextArgs, ModelArgs};
use super::{DeviceArgs, say};
use nanotern::Result;
use nanotern::infer::EngineOptions;
use nanotern::serve::{Options, Recovery, Reopen, Server, listen};
use nanotern::train::Signals;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Address to listen on; with 127.0.0.1 only this machine can connect.
    #[arg(long, default_value = "127.0.0.1", env = "NANOTERN_HOST")]
    host: String,
    /// Port to listen on; 0 chooses a free one.
    #[arg(long, default_value_t = 8080, env = "NANOTERN_PORT")]
    port: u16,
    /// Conversations answered at the same time; further ones wait.
    #[arg(long, default_value_t = 4, env = "NANOTERN_SLOTS")]
    slots: usize,
    #[command(flatten)]
    context: ContextArgs,
    /// Requests that may wait; further ones are rejected. With 0 a request gets a free slot or is rejected.
    #[arg(long, default_value_t = 64, env = "NANOTERN_QUEUE")]
    queue: usize,
    /// Seconds that running answers may take after the server is told to stop.
    #[arg(long, default_value_t = 10, env = "NANOTERN_DRAIN_SECONDS")]
    drain_seconds: u32,
    #[command(flatten)]
    device: DeviceArgs,
    /// Go on with the CPU when the device fails and cannot be opened again, or fails four times within a minute.
    #[arg(long, value_parser = ["cpu"], env = "NANOTERN_FALLBACK")]
    fallback: Option<String>,
}

pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    let listener = listen(&args.host, args.port)?;
    let (mut file, path, same) = args.model.open_again()?;
    let engine = EngineOptions { slots: args.slots, context: args.context.limit(&mut file)? };
    let (backend, device) = args.device.open_for(&file)?;
    let drain_seconds = args.drain_seconds;
    let options = Options { engine, queue: args.queue, drain: Duration::from_secs(drain_seconds.into()) };
    let id = model_id(&path);
    let reopen = |name: &str| -> Reopen {
        let (name, model, device) = (name.to_string(), same.clone(), args.device.clone());
        Box::new(move || {
            say(&format!("the device failed: the model is loaded again, with backend {name}"));
            let (mut file, _) = model.open()?;
            file.config.seq_len = engine.context;
            Ok((file, device.open_as(&name)?))
        })
    };
    let recovery = Recovery { reopen: Some(reopen(backend.name())), fallback: args.fallback.as_deref().map(reopen) };
    let server = Server::new(listener, &file, &id, &backend, recovery, options)?;
    let address = server.address()?;
    // From here on: before, there is nothing to finish, and a signal ends the process.
    let signals = Signals::install();
    if !address.ip().is_loopback() {
        say("warning: everybody who can reach this machine can use the model; there is no authentication");
    }
    say(&format!("http://{address}  {id} ({} parameters)  on {device}", file.param_count()));
    drop((file, backend));
    server.run(async move {
        while signals.pending().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        say(&format!("shutting down: running answers have {drain_seconds} seconds to end"));
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The model's name in the API: that of its file without the extension, or that of its run.
fn model_id(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let own = name(&path).unwrap_or_else(|| "model".into());
    if own == "final" || own.starts_with("step_") {
        return path.parent().and_then(name).unwrap_or(own);
    }
    own.strip_suffix(".gguf").unwrap_or(&own).to_string()
}
