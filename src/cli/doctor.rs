//! `nanotern devices` and `nanotern doctor`.

use super::out::outln;
use nanotern::Result;
use nanotern::backend::{self, Backend, Cpu, Level, Wgpu};
use nanotern::train::self_test;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct DevicesArgs {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct DoctorArgs {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

pub fn devices(args: &DevicesArgs) -> Result<ExitCode> {
    let adapters = backend::adapters();
    let cpu = Cpu::new(Level::detect(), None)?;
    #[cfg(feature = "cuda")]
    let cuda = backend::cuda::devices();
    if args.json {
        let list = adapters
            .iter()
            .map(|a| serde_json::json!({ "backend": "wgpu", "name": a.name, "description": a.to_string(), "gpu": a.is_gpu() }))
            .chain([serde_json::json!({ "backend": "cpu", "name": cpu.describe(), "gpu": false })]);
        #[cfg(feature = "cuda")]
        let list = list.chain(cuda.into_iter().flatten().map(
            |d| serde_json::json!({ "backend": "cuda", "name": d.name, "description": d.to_string(), "gpu": true }),
        ));
        let list: Vec<_> = list.collect();
        outln!("{}", serde_json::Value::Array(list))?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{:8} {}", "cpu", cpu.describe())?;
    for (i, adapter) in adapters.iter().enumerate() {
        outln!("{:8} {i}: {adapter}", "wgpu")?;
    }
    if adapters.is_empty() {
        outln!("{:8} none: {}", "wgpu", backend::NO_ADAPTER)?;
    }
    #[cfg(feature = "cuda")]
    match cuda {
        Ok(devices) if devices.is_empty() => outln!("{:8} none: {}", "cuda", backend::cuda::NO_DEVICE)?,
        Ok(devices) => (devices.iter().enumerate()).try_for_each(|(i, device)| outln!("{:8} {i}: {device}", "cuda"))?,
        Err(error) => outln!("{:8} none: {error}", "cuda")?,
    }
    Ok(ExitCode::SUCCESS)
}

pub fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let mut devices: Vec<(String, Result<Backend>)> = Level::available()
        .into_iter()
        .map(|level| (format!("cpu {level}"), Cpu::new(level, None).map(Backend::Cpu)))
        .collect();
    let adapters = backend::adapters();
    for (i, adapter) in adapters.iter().enumerate() {
        devices.push((format!("wgpu {adapter}"), Wgpu::open(Some(&i.to_string())).map(Backend::Wgpu)));
    }
    #[cfg(feature = "cuda")]
    let cuda = backend::cuda::devices();
    #[cfg(feature = "cuda")]
    for (i, device) in cuda.iter().flatten().enumerate() {
        let opened = backend::Cuda::open(Some(&i.to_string()));
        devices.push((format!("cuda {device}"), opened.map(Backend::Cuda)));
    }
    let mut reports = Vec::new();
    for (name, device) in devices {
        let verdict = device.and_then(|d| pollster::block_on(self_test(&d)));
        let (ok, text) = match verdict {
            Ok(differences) if differences.is_empty() => (true, "every op of a training step agrees".to_string()),
            Ok(differences) => {
                let d = &differences[0];
                (false, format!("{} of {} differs by {:.1e}", d.output, d.op, d.error))
            }
            Err(error) => (false, error.to_string()),
        };
        if !args.json {
            outln!("{}  {name}: {text}", if ok { "ok  " } else { "FAIL" })?;
        }
        reports.push(serde_json::json!({ "device": name, "ok": ok, "report": text }));
    }
    if args.json {
        outln!("{}", serde_json::Value::Array(reports.clone()))?;
    } else if adapters.is_empty() {
        outln!("no GPU: {}", backend::NO_ADAPTER)?;
    } else if !adapters.iter().any(|a| a.is_gpu()) {
        outln!("no GPU: the adapters are software devices; is the GPU vendor's driver installed?")?;
    }
    #[cfg(feature = "cuda")]
    if let (false, Err(error)) = (args.json, cuda) {
        outln!("no CUDA: {error}")?;
    }
    let ok = reports.iter().all(|r| r["ok"] == true);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
