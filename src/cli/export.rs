//! `nanotern export`.

use super::model::checkpoint;
use super::out::outln;
use nanotern::files::check_output;
use nanotern::formats::{Format, TensorData};
use nanotern::train::newest_run;
use nanotern::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct ExportArgs {
    /// A checkpoint, or a run, whose newest checkpoint is used; by default the newest run.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// If the newest checkpoint of the run cannot be read, use an older one.
    #[arg(long)]
    allow_older: bool,
    /// File to write; an existing file is replaced once the new one is complete.
    #[arg(long, default_value = "model.gguf")]
    output: PathBuf,
    /// Encoding of ternary weights: q1_58 (any group size), or tq2_0 or tq1_0 (group size 256).
    #[arg(long, default_value = "q1_58")]
    format: Format,
    /// Encoding of the embedding and of a head that is not ternary: as trained, or q8_0, which rounds them to 8 bits.
    #[arg(long, default_value = "trained")]
    tables: Tables,
    /// Also write the residual mixing to a separate .mhc file.
    #[arg(long, value_name = "FILE")]
    mhc: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Tables {
    Trained,
    #[value(name = "q8_0")]
    Q8_0,
}

pub fn run(args: &ExportArgs) -> Result<ExitCode> {
    let from = match &args.checkpoint {
        Some(dir) => dir.clone(),
        None => newest_run(Path::new("runs"))?,
    };
    for output in [Some(&args.output), args.mhc.as_ref()].into_iter().flatten() {
        check_output(output)?;
    }
    let (mut model, read) = checkpoint(&from, args.allow_older)?;
    if args.tables == Tables::Q8_0 {
        model.round_tables_to_int8()?;
    }
    let mhc = match &args.mhc {
        Some(path) => {
            let streams = || Error::usage("--mhc: a model with one residual stream has no residual mixing");
            Some((path, model.mhc().ok_or_else(streams)?))
        }
        None => None,
    };
    let bytes = model.save_gguf(&args.output, args.format)?;
    outln!("checkpoint  {} (step {})", read.dir.display(), read.step)?;
    outln!("model       {} parameters, vocabulary {}", model.param_count(), model.vocab)?;
    for kind in ["ternary", "int8", "f16", "f32"] {
        let of_kind = || model.tensors.iter().filter(|t| t.data.kind() == kind);
        let (tensors, bytes) = (of_kind().count(), of_kind().map(|t| TensorData::bytes(&t.data)).sum::<usize>());
        outln!("{kind:11} {tensors} tensors, {bytes} bytes unpadded in memory")?;
    }
    outln!("wrote       {} ({bytes} bytes, {})", args.output.display(), args.format)?;
    if let Some((path, mhc)) = mhc {
        outln!("wrote       {} ({} bytes)", path.display(), mhc.save(path)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
