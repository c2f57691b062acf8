//! Flags, and the way from them to the library. Precedence: flag, then `NANOTERN_*` environment, then TOML file, then
//! preset.

mod bench;
mod bench_kernels;
mod data;
mod doctor;
mod eval;
mod export;
mod generate;
mod inspect;
mod model;
mod serve;
mod train;

use clap::{CommandFactory, Parser, Subcommand};
use cpu_kernels::matrix::ternary_gemv::Layout;
use nanotern::backend::{self, Backend, Level};
use nanotern::{Error, Result};
use std::io::Write;
use std::process::ExitCode;

/// Train 1.58-bit (ternary) language models on any GPU, or none.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model; with no arguments a tiny one, on embedded data, on the best device there is.
    Train(Box<train::TrainArgs>),
    /// Talk to a model.
    Chat(generate::ChatArgs),
    /// Go on from a text.
    Generate(generate::GenerateArgs),
    /// Measure how good a model is.
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Measure speed.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// List the devices that can train.
    Devices(doctor::DevicesArgs),
    /// Check this machine: instruction sets, GPU drivers, and that all of them compute the same.
    Doctor(doctor::DoctorArgs),
    /// Turn a checkpoint into one file that serves: GGUF.
    Export(export::ExportArgs),
    /// Answer chats over HTTP, with the API of OpenAI, and on a page for the browser.
    Serve(serve::ServeArgs),
    /// Show what is in a file (checkpoint, GGUF, .mhc, safetensors, tokens), and whether it is intact.
    Inspect(inspect::InspectArgs),
    /// Work with tokenizers.
    #[command(subcommand)]
    Tokenizer(data::TokenizerCommand),
    /// Work with data sets.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

/// Where to compute.
#[derive(clap::Args)]
struct DeviceArgs {
    /// auto (a GPU if there is one or --adapter names one, else the CPU), cpu, wgpu, or cuda where it is built in.
    #[arg(long, default_value = "auto", env = "NANOTERN_BACKEND")]
    backend: String,
    /// GPU to use: its number in `nanotern devices`, or a part of its name.
    #[arg(long, env = "NANOTERN_ADAPTER")]
    adapter: Option<String>,
    /// CPU threads; all cores unless given.
    #[arg(long, env = "NANOTERN_THREADS")]
    threads: Option<usize>,
    /// CPU instruction-set level: scalar, avx2, avx512, neon or dotprod; the best there is unless given.
    #[arg(long, env = "NANOTERN_CPU_LEVEL")]
    cpu_level: Option<Level>,
    /// Layout of ternary weights for decoding on the CPU: rows16, pairs32 or canonical; the fastest as measured unless given.
    #[arg(long, env = "NANOTERN_CPU_LAYOUT")]
    cpu_layout: Option<Layout>,
}

impl DeviceArgs {
    /// What was opened, and what `auto` did not find.
    fn describe(&self, backend: &Backend) -> String {
        let none = self.backend == "auto" && matches!(backend, Backend::Cpu(_));
        format!("{}{}", backend.describe(), if none { "; no GPU was found" } else { "" })
    }

    fn open(&self) -> Result<Backend> {
        let level = self.cpu_level;
        let backend = backend::open(&self.backend, self.adapter.as_deref(), self.threads, level)?;
        let Some(layout) = self.cpu_layout else { return Ok(backend) };
        match backend {
            Backend::Cpu(cpu) => Ok(Backend::Cpu(cpu.with_layout(layout)?)),
            other => Err(Error::usage(format!("--cpu-layout: the backend is {}", other.describe()))),
        }
    }
}

/// A line on standard error; training does not stop because its terminal was closed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends quietly when the reader of standard output has gone, as in `nanotern inspect DIR | head`.
#[cfg(unix)]
fn end_with_the_pipe() -> Result<()> {
    let always = std::sync::Arc::new(true.into());
    signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always)
        .map(|_| ())
        .map_err(|e| Error::Device(format!("SIGPIPE: {e}")))
}

fn execute(command: Command) -> Result<ExitCode> {
    // Training and serving write to standard error only, and go on when it is closed or a client goes away.
    #[cfg(unix)]
    if !matches!(command, Command::Train(_) | Command::Serve(_)) {
        end_with_the_pipe()?;
    }
    match command {
        Command::Train(args) => train::run(&args),
        Command::Chat(args) => generate::chat(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::Eval(command) => eval::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Devices(args) => doctor::devices(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Export(args) => export::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenizer(command) => data::tokenizer(&command),
        Command::Data(command) => data::data(&command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "nanotern", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub fn run() -> ExitCode {
    execute(Cli::parse().command).unwrap_or_else(|error| {
        say(&format!("error: {error}"));
        ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
    })
}
