//! `cargo xtask validate`: the end-to-end check of a build in about half a minute. Kernels on every level, training, resuming,
//! files, mixing matrices and generation, a line with its time for each.

use super::{Result, cargo, empty, web};
use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

/// Large enough for the groups of 256 that two of the file formats need.
const CONFIG: &str = "\
[model]
dim = 256
layers = 2
heads = 4
kv_heads = 2
ffn = 256
seq_len = 64
group_size = 256
mhc_streams = 2
[data]
dataset = \"text\"
path = \"corpus.txt\"
val_path = \"corpus.txt\"
tokenizer = \"bytes\"
[train]
batch_size = 4
total_steps = 40
eval_windows = 1000
eval_interval = 0
[optim]
warmup_steps = 4
";
const FORMATS: [&str; 3] = ["q1_58", "tq2_0", "tq1_0"];
const LINE: &str = "the quick brown fox jumps over the lazy dog\n";

/// What a check says, and what it does.
type Check = (&'static str, fn(&Build) -> Result);

/// The program, and a folder of its own.
struct Build {
    program: PathBuf,
    dir: PathBuf,
}

/// Builds the program and checks it. With `--release`, that of the profile for users.
pub fn validate(args: &[String]) -> Result {
    let release = match args {
        [] => false,
        [only] if only == "--release" => true,
        _ => return Err("usage: cargo xtask validate [--release]".into()),
    };
    // The features of the tests: any other selection would build the dependencies again.
    cargo(&format!("build --workspace --bin nanotern --locked{}", if release { " --release" } else { "" }))?;
    let folder = web::target()?.join(if release { "release" } else { "debug" });
    let build = Build { program: folder.join(format!("nanotern{EXE_SUFFIX}")), dir: folder.join("validate") };
    empty(&build.dir)?;
    build.write("config.toml", CONFIG)?;
    build.write("corpus.txt", &LINE.repeat(40))?;
    let checks: [Check; 7] = [
        ("every op of a training step agrees with its definition, on every level and device", doctor),
        ("a small model learns its text", learns),
        ("a run that goes on ends as one that never stopped, with optimizer state in 8 bits", resumes),
        ("every format holds the model, and mixing matrices are doubly stochastic", exports),
        ("what is served has the loss that was trained", serves),
        ("every op of decoding agrees with its definition", decodes),
        ("the checkpoint and every file write the same text, which is the one they learned", generates),
    ];
    let begin = Instant::now();
    for (what, check) in checks {
        let start = Instant::now();
        check(&build).map_err(|error| format!("FAIL  {what}: {error}"))?;
        println!("ok    {:5.1} s  {what}", start.elapsed().as_secs_f64());
    }
    println!("      {:5.1} s  in all", begin.elapsed().as_secs_f64());
    Ok(())
}

impl Build {
    fn write(&self, name: &str, text: &str) -> Result {
        fs::write(self.dir.join(name), text).map_err(|e| format!("{name}: {e}"))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.dir.join(name)).map_err(|e| format!("{name}: {e}"))
    }

    /// What the program prints.
    fn run(&self, args: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        let output = command.args(args.split(' ')).current_dir(&self.dir).output().map_err(|e| e.to_string())?;
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        if output.status.success() { Ok(out) } else { Err(format!("`nanotern {args}`: {}\n{out}{err}", output.status)) }
    }

    /// The last value of a key in the log of a run.
    fn logged(&self, run: &str, key: &str) -> Result<f64> {
        let log = String::from_utf8_lossy(&self.read(&format!("{run}/metrics.jsonl"))?).into_owned();
        number(&log, key)
    }
}

/// The last number with this key in objects of JSON.
fn number(json: &str, key: &str) -> Result<f64> {
    let (_, rest) = json.rsplit_once(&format!("\"{key}\":")).ok_or_else(|| format!("no {key} in {json}"))?;
    let digits = rest.split([',', '}', '\n']).next().unwrap_or_default();
    digits.trim().parse().map_err(|e| format!("{key}: {digits}: {e}"))
}

fn doctor(build: &Build) -> Result {
    build.run("doctor").map(|_| ())
}

fn learns(build: &Build) -> Result {
    build.run("train --config config.toml --backend cpu --checkpoint-dir run")?;
    let loss = build.logged("run", "val_loss")?;
    if loss < 1.0 { Ok(()) } else { Err(format!("its validation loss is {loss}")) }
}

fn resumes(build: &Build) -> Result {
    let train = "train --config config.toml --backend cpu --set optim.state=int8 --set optim.decay_fraction=0.0";
    build.run(&format!("{train} --total-steps 10 --checkpoint-dir whole"))?;
    build.run(&format!("{train} --total-steps 5 --checkpoint-dir halves"))?;
    build.run("train --resume halves --backend cpu --total-steps 10")?;
    for file in ["model", "optimizer"] {
        let name = |run: &str| format!("{run}/final/{file}.safetensors");
        if build.read(&name("whole"))? != build.read(&name("halves"))? {
            return Err(format!("{file}.safetensors differs"));
        }
    }
    Ok(())
}

fn exports(build: &Build) -> Result {
    for format in FORMATS {
        build.run(&format!("export --checkpoint run --format {format} --output {format}.gguf --mhc {format}.mhc"))?;
        build.run(&format!("inspect {format}.gguf"))?;
        let mixing = build.run(&format!("inspect {format}.mhc"))?;
        if !mixing.contains("every H_res doubly stochastic") {
            return Err(format!("{format}.mhc: {mixing}"));
        }
    }
    Ok(())
}

fn serves(build: &Build) -> Result {
    let trained = build.logged("run", "val_loss")?;
    for model in FORMATS.map(|format| format!("{format}.gguf")).into_iter().chain(["run".to_string()]) {
        let json =
            build.run(&format!("eval perplexity --model {model} --backend cpu --data-path corpus.txt --json"))?;
        let served = number(&json, "nats_per_token")?;
        if (served - trained).abs() > 1e-5 * trained {
            return Err(format!("{model}: {served} nats a token, {trained} in training"));
        }
    }
    Ok(())
}

fn decodes(build: &Build) -> Result {
    build.run("eval parity --model q1_58.gguf --backend cpu").map(|_| ())?;
    let adapter = build.run("devices --json")?.contains(r#""backend":"wgpu""#);
    if adapter || env::var("NANOTERN_REQUIRE_GPU").as_deref() == Ok("1") {
        return build.run("eval parity --model q1_58.gguf --backend wgpu").map(|_| ());
    }
    println!("NOT CHECKED ON WGPU: this machine has no adapter.");
    Ok(())
}

fn generates(build: &Build) -> Result {
    let generate = "generate --backend cpu --temperature 0 --max-tokens 24 --prompt the --model";
    let text = |model: &str| build.run(&format!("{generate} {model}"));
    let first = text("run")?;
    if !first.contains("the lazy dog") {
        return Err(format!("the checkpoint writes {first:?}"));
    }
    for format in FORMATS {
        let other = text(&format!("{format}.gguf"))?;
        if other != first {
            return Err(format!("{format}.gguf writes {other:?}, the checkpoint {first:?}"));
        }
    }
    Ok(())
}
