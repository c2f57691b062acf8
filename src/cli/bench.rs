//! `nanotern bench`.

use super::DeviceArgs;
use nanotern::train::{Config, bench_step, matmul_peak, profile_step};
use nanotern::{Result, data};
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum BenchCommand {
    /// Training steps on random tokens, optimizer included.
    TrainStep {
        /// A preset or a TOML file.
        #[arg(long, default_value = "tiny")]
        config: String,
        #[command(flatten)]
        device: DeviceArgs,
        /// Steps to time.
        #[arg(long, default_value_t = 10)]
        steps: usize,
        /// Where the time goes, op by op.
        #[arg(long)]
        profile: bool,
        /// Any key of the configuration; may be repeated.
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        overrides: Vec<String>,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &BenchCommand) -> Result<ExitCode> {
    let BenchCommand::TrainStep { config: name, device, steps, profile, overrides, json } = command;
    let overrides = overrides.iter().map(|o| Config::parse_override(o)).collect::<Result<Vec<_>>>()?;
    let config = Config::load(Some(name), &overrides)?;
    let vocab = config.data.vocab_size.unwrap_or(data::DEFAULT_VOCAB_SIZE);
    let backend = device.open()?;
    let steps = (*steps).max(1);
    if *profile {
        for t in profile_step(&config, vocab, &backend, steps)? {
            let rate =
                if t.flops > 0 { format!("{:8.1} GFLOP/s", t.flops as f64 / t.seconds * 1e-9) } else { String::new() };
            println!("{:32} {:4} calls {:9.3} ms {rate}", t.op, t.calls, 1e3 * t.seconds);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let peak = matmul_peak(&backend)?;
    let bench = bench_step(&config, vocab, &backend, steps)?;
    let mfu = bench.model_flops as f64 / bench.median() / peak;
    if *json {
        let report = serde_json::json!({
            "device": backend.describe(),
            "tokens_per_step": bench.tokens_per_step,
            "seconds": bench.seconds,
            "tok_per_s": bench.tokens_per_second(),
            "mfu": mfu,
            "matmul_flops_per_s": peak,
            "buffer_bytes": bench.buffer_bytes,
        });
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("device  {}", backend.describe());
    println!(
        "step    {:.1} ms (median of {steps}), {:.0} tok/s, {:.0} % of the {:.0} GFLOP/s of a matrix product",
        1e3 * bench.median(),
        bench.tokens_per_second(),
        100.0 * mfu,
        peak * 1e-9,
    );
    println!("memory  {:.1} MiB of buffers", bench.buffer_bytes as f64 / (1 << 20) as f64);
    Ok(ExitCode::SUCCESS)
}
