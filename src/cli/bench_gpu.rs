//! `nanotern bench gpu`: everything about a card in one run, as tables or as one JSON object.

use super::out::outln;
use super::say;
use nanotern::backend;
use nanotern::bench::{Extent, Ops, Outcome, Report, Sequences, Training, bench_gpu};
use nanotern::error::mib;
use nanotern::{Error, Result};
use std::time::Duration;

#[derive(clap::Args)]
pub struct GpuArgs {
    /// wgpu, or cuda if it is built in.
    #[arg(long, default_value = "wgpu", value_parser = ["wgpu", "cuda"])]
    backend: String,
    /// GPU to measure: its number in `nanotern devices`, or a part of its name.
    #[arg(long, env = "NANOTERN_ADAPTER")]
    adapter: Option<String>,
    /// Only small shapes, to see that all of it runs.
    #[arg(long)]
    quick: bool,
    /// Minutes that the run may take; what would end later is skipped.
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &GpuArgs) -> Result<()> {
    if args.minutes == 0 {
        return Err(Error::usage("--minutes 0: at least 1 is possible"));
    }
    let options = backend::Options { adapter: args.adapter.clone(), ..backend::Options::default() };
    let open = || backend::open(&args.backend, &options);
    let extent = Extent { quick: args.quick, limit: Duration::from_secs(60 * u64::from(args.minutes)) };
    let report = bench_gpu(&open, extent, &mut |line| say(line))?;
    if args.json {
        return outln!("{}", serde_json::to_string(&report).expect("a report has no maps with other keys than text"));
    }
    print(&report)
}

fn print(report: &Report) -> Result<()> {
    let Report { device, probes, parity, .. } = report;
    outln!("device   {}{}", device.description, if device.software { "; this is no GPU" } else { "" })?;
    device.driver.iter().try_for_each(|driver| outln!("driver   {driver}"))?;
    let features = if device.features.is_empty() { "none".into() } else { device.features.join(", ") };
    outln!("features {features}")?;
    device.limits.iter().try_for_each(|(name, limit)| outln!("limit    {name} {limit}"))?;
    let (gb, gflops, copied) = (probes.bytes_per_s * 1e-9, probes.flops_per_s * 1e-9, mib(probes.copied_bytes as u64));
    outln!("probes   {gb:.1} GB/s in copies of {copied:.0} MiB, {gflops:.0} GFLOP/s of f32 multiply-adds")?;
    outln!("clock    {}", device.clock)?;
    match parity {
        Outcome::Done(parity) if parity.agrees => outln!("parity   every op agrees with the CPU")?,
        Outcome::Done(parity) => {
            for d in &parity.differences {
                outln!("parity   {} of {} DIFFERS by {:.1e}", d.output, d.op, d.error)?;
            }
        }
        Outcome::Skipped { skipped } => outln!("parity   skipped: {skipped}")?,
    }
    for named in &report.ops {
        match &named.outcome {
            Outcome::Done(ops) => print_ops(&named.name, ops)?,
            Outcome::Skipped { skipped } => outln!("\nops of a training step of {}: skipped: {skipped}", named.name)?,
        }
    }
    outln!("\n{:24} {:>10} {:>12} {:>10} {:>6}", "training", "tok/s", "roofline", "of it", "mfu")?;
    for named in &report.training {
        match &named.outcome {
            Outcome::Done(Training { tok_per_s, roofline_tok_per_s, mfu, recompute, .. }) => {
                let name = format!("{}{}", named.name, if *recompute { ", recomputed" } else { "" });
                let (of_it, mfu) = (100.0 * tok_per_s / roofline_tok_per_s, 100.0 * mfu);
                outln!("{name:24} {tok_per_s:10.0} {roofline_tok_per_s:12.0} {of_it:8.1} % {mfu:4.1} %")?;
            }
            Outcome::Skipped { skipped } => outln!("{:24} skipped: {skipped}", named.name)?,
        }
    }
    print_sequences("prefill", &report.prefill)?;
    print_sequences("decode", &report.decode)?;
    outln!("\nmeasured in {:.0} s", report.seconds)
}

fn print_ops(name: &str, Ops { tokens, seconds, roofline_seconds, ops }: &Ops) -> Result<()> {
    let (ms, least) = (1e3 * seconds, 1e3 * roofline_seconds);
    outln!("\nops of a training step of {name}, {tokens} tokens: {ms:.1} ms, roofline {least:.1} ms")?;
    outln!("{:32} {:>6} {:>10} {:>8} {:>10} {:>8}", "op", "calls", "ms", "share", "roofline", "of it")?;
    for op in ops {
        let (ms, share, least) = (1e3 * op.seconds, 100.0 * op.share, 1e3 * op.roofline_seconds);
        let of_it = op.roofline_share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
        outln!("{:32} {:6} {ms:10.3} {share:6.1} % {least:10.3} {of_it:>8}", op.op, op.calls)?;
    }
    Ok(())
}

fn print_sequences(what: &str, all: &[Sequences]) -> Result<()> {
    outln!("\n{what:24} {:>10} {:>12} {:>10}", "tok/s", "roofline", "of it")?;
    for Sequences { name, sequences, outcome } in all {
        let name = format!("{name} x {sequences}");
        match outcome {
            Outcome::Done(speed) => {
                let (rate, roofline) = (speed.tok_per_s, speed.roofline_tok_per_s);
                outln!("{name:24} {rate:10.0} {roofline:12.0} {:8.1} %", 100.0 * rate / roofline)?;
            }
            Outcome::Skipped { skipped } => outln!("{name:24} skipped: {skipped}")?,
        }
    }
    Ok(())
}
