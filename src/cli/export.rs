//! `nanotern export` and `nanotern convert`: they differ in what they read.

use super::model::{checkpoint, read};
use super::out::outln;
use super::say;
use nanotern::files::{check_new, check_output};
use nanotern::formats::{ModelFile, ReadFrom, Target, TensorData};
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
    /// What to write; an existing file is replaced once the new one is complete. By default model.gguf, or the folder model.
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(clap::Args)]
pub struct ConvertArgs {
    /// A GGUF file, a folder as Hugging Face has them, a checkpoint, or a run, whose newest checkpoint is used.
    model: PathBuf,
    /// What to write: a GGUF file, which is replaced once the new one is complete, or a folder, which must not exist.
    output: PathBuf,
    /// If the newest checkpoint of the run cannot be read, use an older one.
    #[arg(long)]
    allow_older: bool,
    #[command(flatten)]
    write: WriteArgs,
}

/// What is written.
#[derive(clap::Args)]
struct WriteArgs {
    /// A GGUF file with ternary weights in q1_58 (groups of any size, only for nanotern), tq2_0 or tq1_0 (groups of 256, for llama.cpp)
    /// or i2_s (one scale for a matrix, for bitnet.cpp); or a folder as Hugging Face has them, in hf-packed (one scale for a matrix) or
    /// hf-bf16 (weights as bf16). By default i2_s if a matrix has one scale, otherwise q1_58: both hold the model exactly.
    #[arg(long)]
    format: Option<Target>,
    /// Encoding of the embedding and of a head that is not ternary: as they are, or q8_0, which rounds them to 8 bits.
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

pub fn export(args: &ExportArgs) -> Result<ExitCode> {
    let from = match &args.checkpoint {
        Some(dir) => dir.clone(),
        None => newest_run(Path::new("runs"))?,
    };
    let name = if args.write.makes_folder() { "model" } else { "model.gguf" };
    let output = args.output.clone().unwrap_or_else(|| name.into());
    args.write.check(&output)?;
    let (model, read) = checkpoint(&from, args.allow_older)?;
    args.write.write(model, Some(&read), &output)
}

pub fn convert(args: &ConvertArgs) -> Result<ExitCode> {
    args.write.check(&args.output)?;
    let (model, read) = read(&args.model, args.allow_older)?;
    args.write.write(model, read.as_ref(), &args.output)
}

impl WriteArgs {
    fn makes_folder(&self) -> bool {
        matches!(self.format, Some(Target::Folder(_)))
    }

    /// Refuses outputs that cannot be written, before the model is read.
    fn check(&self, output: &Path) -> Result<()> {
        if self.makes_folder() {
            check_new(output)?
        } else {
            _ = check_output(output)?
        }
        self.mhc.as_deref().map_or(Ok(()), |mhc| check_output(mhc).map(|_| ()))
    }

    fn write(&self, mut model: ModelFile, read: Option<&ReadFrom>, output: &Path) -> Result<ExitCode> {
        if self.tables == Tables::Q8_0 {
            model.round_tables_to_int8()?;
        }
        let mhc = match &self.mhc {
            Some(path) => {
                let streams = || Error::usage("--mhc: a model with one residual stream has no residual mixing");
                Some((path, model.mhc().ok_or_else(streams)?))
            }
            None => None,
        };
        let target = self.format.unwrap_or_else(|| model.exact_target());
        model.fit(target)?.iter().for_each(|note| say(&format!("note: {note}")));
        let bytes = model.save(output, target)?;
        if let Some(read) = read {
            outln!("checkpoint  {} (step {})", read.dir.display(), read.step)?;
        }
        outln!("model       {} parameters, vocabulary {}", model.param_count(), model.vocab)?;
        for kind in ["ternary", "int8", "f16", "f32"] {
            let of_kind = || model.tensors.iter().filter(|t| t.data.kind() == kind);
            let (tensors, bytes) = (of_kind().count(), of_kind().map(|t| TensorData::bytes(&t.data)).sum::<usize>());
            outln!("{kind:11} {tensors} tensors, {bytes} bytes unpadded in memory")?;
        }
        outln!("wrote       {} ({bytes} bytes, {target})", output.display())?;
        outln!("read by     {}", model.readers(target))?;
        if let Some((path, mhc)) = mhc {
            outln!("wrote       {} ({} bytes)", path.display(), mhc.save(path)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
