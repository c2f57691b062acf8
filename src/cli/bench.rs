//! `nanotern bench`.

use super::model::{ContextArgs, ModelArgs};
use super::out::outln;
use super::{DeviceArgs, bench_gpu, bench_kernels};
use nanotern::backend::Backend;
use nanotern::bench::{self, InferenceBench, OpTime, OpTraffic, Profile, Shape, StepPlan};
use nanotern::error::mib;
use nanotern::formats::ModelFile;
use nanotern::train::{Config, fma_peak, utilisation};
use nanotern::{Result, data};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum BenchCommand {
    /// Training steps on random tokens, optimizer included.
    TrainStep(TrainStepArgs),
    /// Prefill: reading a prompt, up to the logits after its last token.
    Prefill(PrefillArgs),
    /// Decoding: sampling tokens one after the other, greedily.
    Decode(DecodeArgs),
    /// Ternary matrix products on one CPU thread, compared with the limits of the machine.
    Kernels(bench_kernels::KernelArgs),
    /// Everything about a GPU beside its limits: ops, training steps, prefill and decoding; half an hour at most.
    Gpu(bench_gpu::GpuArgs),
}

#[derive(clap::Args)]
pub struct TrainStepArgs {
    #[arg(long, default_value = "tiny", help = super::config_help())]
    config: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    /// Steps to time.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Print the time of each op.
    #[arg(long)]
    profile: bool,
    /// Print what a step asks of a device, without one: launches and bytes moved by each op, and memory.
    #[arg(long, conflicts_with = "profile")]
    plan: bool,
    /// Any key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct PrefillArgs {
    #[command(flatten)]
    common: InferenceArgs,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
}

#[derive(clap::Args)]
pub struct DecodeArgs {
    #[command(flatten)]
    common: InferenceArgs,
    /// Tokens to sample.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Tokens of the prompt, which is not timed.
    #[arg(long, default_value_t = 16)]
    prompt: usize,
    /// Print the time of each op for the first token.
    #[arg(long)]
    profile: bool,
}

/// The model, the device and the number of measurements.
#[derive(clap::Args)]
struct InferenceArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Instead of a file, a model with random weights: 18m, 125m, 220m, 520m-moe, 560m or 2b.
    #[arg(long, conflicts_with_all = ["model", "mhc", "tokenizer"], value_parser = Shape::find)]
    shape: Option<&'static Shape>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Number of measurements, after a warm-up run.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl InferenceArgs {
    /// The model, its name for the report, and the device.
    fn open(&self) -> Result<(ModelFile, String, Backend)> {
        let (mut file, name) = match self.shape {
            Some(shape) => (shape.model(), format!("{} (random weights)", shape.name)),
            None => self.model.open().map(|(file, path)| (file, path.display().to_string()))?,
        };
        self.context.limit(&mut file)?;
        Ok((file, name, self.device.open()?))
    }
}

pub fn run(command: &BenchCommand) -> Result<ExitCode> {
    match command {
        BenchCommand::TrainStep(args) => train_step(args)?,
        BenchCommand::Kernels(args) => bench_kernels::run(args)?,
        BenchCommand::Gpu(args) => bench_gpu::run(args)?,
        BenchCommand::Prefill(PrefillArgs { common, tokens }) => {
            let (file, name, backend) = common.open()?;
            let bench = bench::bench_prefill(&file, &backend, *tokens, common.repeats)?;
            report(common, ("prefill", None), &name, &backend, &bench)?;
        }
        BenchCommand::Decode(DecodeArgs { common, tokens, prompt, profile }) => {
            let (file, name, backend) = common.open()?;
            if *profile {
                print_ops(&bench::profile_decode(&file, &backend, *prompt, common.repeats)?, common.json)?;
            } else {
                let bench = bench::bench_decode(&file, &backend, (*prompt, *tokens), common.repeats)?;
                report(common, ("decode", Some(*prompt)), &name, &backend, &bench)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a measurement. `work` is the name of the bench and, for decoding, the tokens of the prompt.
fn report(
    args: &InferenceArgs,
    work: (&str, Option<usize>),
    model: &str,
    backend: &Backend,
    bench: &InferenceBench,
) -> Result<()> {
    let ((name, prompt), timing) = (work, &bench.timing);
    let (rate, (least, most)) = (timing.tokens_per_second(), timing.range());
    let (ops, bytes) = (bench.ternary_ops_per_second(), bench.weight_bytes_per_second());
    if args.json {
        let (level, threads) = match backend {
            Backend::Cpu(cpu) => (Some(cpu.level().to_string()), Some(cpu.threads())),
            _ => (None, None),
        };
        let object = json!({
            "bench": name, "tokens": timing.tokens, "prompt": prompt, "model": model, "device": backend.describe(), "level": level, "threads": threads,
            "seconds": timing.seconds, "tok_per_s": rate, "tok_per_s_min": least, "tok_per_s_max": most,
            "seconds_per_token": 1.0 / rate, "ternary_weights": bench.ternary_weights, "ternary_ops_per_s": ops,
            "weight_bytes": bench.weight_bytes, "weight_bytes_per_s": bytes, "buffer_bytes": bench.buffer_bytes,
            "tokens_a_step": bench.drafts.map(|drafts| drafts.tokens_a_step()),
            "passes": bench.passes.map(|passes| passes.mean()),
        });
        return outln!("{object}");
    }
    outln!("device   {}", backend.describe())?;
    outln!("model    {model}")?;
    outln!(
        "{name:8} {rate:.0} tok/s (median of {}; {least:.0} to {most:.0}), {:.3} ms a token",
        args.repeats,
        1e3 / rate
    )?;
    if let Some(drafts) = bench.drafts {
        let (right, all) = (drafts.taken, drafts.fed);
        outln!("drafts   {:.2} tokens a step: {right} of {all} were right", drafts.tokens_a_step())?;
    }
    if let Some(passes) = bench.passes {
        outln!("passes   {:.2} a token", passes.mean())?;
    }
    outln!("layers   {:.1} GOPS over {:.1} M ternary weights", ops * 1e-9, bench.ternary_weights as f64 * 1e-6)?;
    outln!("weights  {:.2} GB/s read", bytes * 1e-9)?;
    outln!("memory   {:.1} MiB of buffers", mib(bench.buffer_bytes as u64))
}

fn print_ops(Profile { clock, ops }: &Profile, as_json: bool) -> Result<()> {
    if as_json {
        let op = |t: &OpTime| json!({ "op": t.op, "calls": t.calls, "seconds": t.seconds, "flops": t.flops, "bytes": t.bytes });
        return outln!("{}", json!({ "clock": clock.to_string(), "ops": ops.iter().map(op).collect::<Vec<_>>() }));
    }
    let all: f64 = ops.iter().map(|t| t.seconds).sum();
    for t in ops {
        let rate =
            if t.flops > 0 { format!("{:8.1} GFLOP/s", t.flops as f64 / t.seconds * 1e-9) } else { String::new() };
        let (ms, percent) = (1e3 * t.seconds, 100.0 * t.seconds / all);
        outln!("{:32} {:4} calls {ms:9.3} ms {percent:5.1} % {rate}", t.op, t.calls)?;
    }
    outln!("{:32} {:4} calls {:9.3} ms", "all", ops.iter().map(|t| t.calls).sum::<usize>(), 1e3 * all)?;
    outln!("timed by {clock}")
}

fn print_plan(plan: &StepPlan, as_json: bool) -> Result<()> {
    if as_json {
        let op = |(op, t): (&&str, &OpTraffic)| json!({ "op": op, "launches": t.launches, "bytes": t.bytes, "tiled_bytes": t.tiled_bytes });
        return outln!(
            "{}",
            json!({
                "launches": plan.total.launches, "bytes": plan.total.bytes, "tiled_bytes": plan.total.tiled_bytes,
                "least_bytes": plan.least_bytes, "buffer_bytes": plan.buffer_bytes, "temporary_bytes": plan.temporary_bytes,
                "ops": plan.ops.iter().map(op).collect::<Vec<_>>(),
            })
        );
    }
    let mut ops: Vec<_> = plan.ops.iter().collect();
    ops.sort_by_key(|(_, t)| std::cmp::Reverse(t.bytes));
    for (op, t) in ops.into_iter().chain([(&"all", &plan.total)]) {
        outln!(
            "{op:32} {:5} launches {:10.1} MiB, {:10.1} MiB with every tile",
            t.launches,
            mib(t.bytes),
            mib(t.tiled_bytes)
        )?;
    }
    let ratio = plan.total.bytes as f64 / plan.least_bytes as f64;
    outln!("the algorithm moves {:.1} MiB at least: {ratio:.2} times that are moved", mib(plan.least_bytes))?;
    let [all, temporary] = [plan.buffer_bytes, plan.temporary_bytes].map(|bytes| mib(bytes as u64));
    outln!("memory  {all:.1} MiB of buffers, {temporary:.1} MiB of them for intermediate results")
}

fn train_step(args: &TrainStepArgs) -> Result<()> {
    let overrides = args.overrides.iter().map(|o| Config::parse_override(o)).collect::<Result<Vec<_>>>()?;
    let config = Config::load(Some(&args.config), &overrides)?;
    let vocab = config.data.vocab_size.unwrap_or(data::DEFAULT_VOCAB_SIZE);
    if args.plan {
        return print_plan(&bench::plan_step(&config, vocab), args.json);
    }
    let backend = args.device.open()?;
    let steps = args.steps.max(1);
    if args.profile {
        return print_ops(&bench::profile_step(&config, vocab, &backend, steps)?, args.json);
    }
    let mut peak = fma_peak(&backend)?;
    let bench = bench::bench_step(&config, vocab, &backend, steps)?;
    let (timing, device) = (&bench.timing, backend.describe());
    let mfu = utilisation(&mut peak, bench.model_flops as f64 / timing.median()).unwrap_or_default();
    let rate = timing.tokens_per_second();
    if args.json {
        let report = json!({
            "device": device,
            "tokens_per_step": timing.tokens,
            "seconds": timing.seconds,
            "tok_per_s": rate,
            "mfu": mfu,
            "peak_flops_per_s": peak,
            "buffer_bytes": bench.buffer_bytes,
        });
        return outln!("{report}");
    }
    let (ms, percent, peak) = (1e3 * timing.median(), 100.0 * mfu, peak * 1e-9);
    outln!("device  {device}")?;
    outln!(
        "step    {ms:.1} ms (median of {steps}), {rate:.0} tok/s, {percent:.0} % of {peak:.0} GFLOP/s, the most that the device multiplies and adds"
    )?;
    outln!("memory  {:.1} MiB of buffers", mib(bench.buffer_bytes as u64))
}
