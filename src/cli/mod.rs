//! The commands: their flags, and the calls of the library. Precedence: flag, `NANOTERN_*` environment, TOML file, preset.

mod bench;
mod bench_gpu;
mod bench_kernels;
mod data;
mod doctor;
mod environment;
mod eval;
mod export;
mod generate;
mod inspect;
mod model;
mod models;
mod out;
mod plan;
mod serve;
mod train;

use clap::{CommandFactory, Parser, Subcommand};
use nanotern::backend::{self, Backend, Layout, Level};
use nanotern::formats::ModelFile;
use nanotern::infer::{Choice, LARGE, faster};
use nanotern::model::PRESETS;
use nanotern::{Error, Result};
use std::io::Write;
use std::process::ExitCode;

/// What `--config` takes.
fn config_help() -> String {
    let presets: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    format!("A preset ({}) or a TOML file", presets.join(", "))
}

/// Train 1.58-bit (ternary) language models on any GPU, or none.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model; without arguments a tiny one, on embedded data, on the best device.
    Train(Box<train::TrainArgs>),
    /// Chat with a model.
    Chat(generate::ChatArgs),
    /// Continue a text.
    Generate(generate::GenerateArgs),
    /// Measure the quality of a model.
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Measure speed.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Print what a configuration needs, without allocating it: parameters, memory, sizes of files, operations a token.
    Plan(plan::PlanArgs),
    /// List the devices that can train.
    Devices(doctor::DevicesArgs),
    /// Check this machine: instruction sets, GPU drivers, and whether all of them compute the same.
    Doctor(doctor::DoctorArgs),
    /// Write a checkpoint as a single file for inference, GGUF, or as a folder for Hugging Face's transformers.
    Export(export::ExportArgs),
    /// Write the model of any file or folder in another format, as `export` does a checkpoint.
    Convert(export::ConvertArgs),
    /// Serve a model over HTTP, with OpenAI's API and a chat page.
    Serve(serve::ServeArgs),
    /// Show the contents of a file (checkpoint, GGUF, .mhc, safetensors, tokens) and check it.
    Inspect(inspect::InspectArgs),
    /// List the models that other programs left on this machine, and which of them run.
    Models(models::ModelsArgs),
    /// Work with tokenizers.
    #[command(subcommand)]
    Tokenizer(data::TokenizerCommand),
    /// Work with data sets.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

/// The device to use.
#[derive(Clone, clap::Args)]
struct DeviceArgs {
    /// auto (a GPU if one exists or --adapter is given, otherwise the CPU; to generate, the faster of both), cpu, wgpu, or cuda if it is built in.
    #[arg(long, default_value = "auto", env = "NANOTERN_BACKEND")]
    backend: String,
    /// GPU to use: its number in `nanotern devices`, or a part of its name.
    #[arg(long, env = "NANOTERN_ADAPTER")]
    adapter: Option<String>,
    /// CPU threads; by default one for each core.
    #[arg(long, env = "NANOTERN_THREADS")]
    threads: Option<usize>,
    /// CPU instruction-set level: scalar, avx2, avx512, neon or dotprod; by default the best.
    #[arg(long, env = "NANOTERN_CPU_LEVEL")]
    cpu_level: Option<Level>,
    /// Layout of ternary weights for decoding on the CPU: rows16, pairs32 or canonical; by default the fastest as measured.
    #[arg(long, env = "NANOTERN_CPU_LAYOUT")]
    cpu_layout: Option<Layout>,
}

impl DeviceArgs {
    /// One line about the opened backend; tells if `auto` found no GPU.
    fn describe(&self, backend: &Backend) -> String {
        let none = self.backend == "auto" && matches!(backend, Backend::Cpu(_));
        format!("{}{}", backend.describe(), if none { "; no GPU was found" } else { "" })
    }

    /// Opens the backend.
    fn open(&self) -> Result<Backend> {
        let DeviceArgs { backend, adapter, threads, cpu_level: level, cpu_layout: layout } = self;
        let (adapter, threads, level, layout) = (adapter.clone(), *threads, *level, *layout);
        backend::open(backend, &backend::Options { adapter, threads, level, layout })
    }

    /// Opens the backend of that name with those of the flags that it takes.
    fn open_as(&self, name: &str) -> Result<Backend> {
        let DeviceArgs { adapter, threads, cpu_level: level, cpu_layout: layout, .. } = self.clone();
        let options = match name {
            "cpu" => backend::Options { adapter: None, threads, level, layout },
            _ => backend::Options { adapter, ..backend::Options::default() },
        };
        backend::open(name, &options)
    }

    /// Opens the backend to generate with a model, and describes it. `auto` takes a GPU only if that decodes faster than the
    /// CPU, and says so; a GPU that is named is taken.
    fn open_for(&self, file: &ModelFile) -> Result<(Backend, String)> {
        let named = self.adapter.as_ref().is_some_and(|name| !name.is_empty());
        if self.backend != "auto" || named || !backend::adapters().iter().any(|a| a.is_gpu()) {
            let backend = self.open()?;
            let description = self.describe(&backend);
            return Ok((backend, description));
        }
        let cpu = self.open_as("cpu")?;
        let backend = match self.open_as("wgpu") {
            Ok(gpu) => {
                let Choice { backend, why } = faster(file, gpu, cpu, LARGE);
                say(&why);
                backend
            }
            Err(error) => {
                say(&format!("auto takes the CPU: {error}"));
                cpu
            }
        };
        let description = backend.describe();
        Ok((backend, description))
    }
}

/// Prints a line to standard error. Errors are ignored: training continues when its terminal is closed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The exit code after the reader of standard output has gone: that of a program which SIGPIPE ends.
const CLOSED: u8 = 141;

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Chat(args) => generate::chat(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::Eval(command) => eval::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Plan(args) => plan::run(&args),
        Command::Devices(args) => doctor::devices(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Export(args) => export::export(&args),
        Command::Convert(args) => export::convert(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Tokenizer(command) => data::tokenizer(&command),
        Command::Data(command) => data::data(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nanotern", &mut script);
            out::write(format_args!("{}", String::from_utf8_lossy(&script)))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Names of this program's environment variables that are empty.
pub use environment::empty as empty_variables;

/// Runs the command line. The exit code is 2 for [`Error::Usage`] and 1 for other errors. It ends quietly when nobody reads
/// its output any more.
pub fn run() -> ExitCode {
    let ended = match Cli::try_parse() {
        Ok(cli) => {
            let names = std::env::vars_os().map(|(name, _)| name);
            environment::warnings(&Cli::command(), names).iter().for_each(|warning| say(warning));
            execute(cli.command)
        }
        Err(wrong) if wrong.use_stderr() => wrong.exit(),
        // What `--help` and `--version` ask for.
        Err(text) => out::written(text.print().and_then(|()| std::io::stdout().flush())).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        if out::is_closed(&error) {
            return ExitCode::from(CLOSED);
        }
        say(&format!("error: {error}"));
        ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
    })
}
