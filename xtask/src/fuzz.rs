//! `cargo xtask fuzz` gives each parser of strangers' files inputs that libFuzzer makes: at first those of `fuzz/seeds`.
//!
//! The instrumentation of libFuzzer is part of every Rust, so no other toolchain is needed.

use super::{Result, cargo_command, empty, host, run, web};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{fs, thread};

/// Counters of edges, and the operands of comparisons, for libFuzzer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Time of each target as a stage.
const SECONDS: u32 = 20;

/// The target `args[0]` with further arguments of libFuzzer. What it finds stays in `fuzz/corpus` and `fuzz/artifacts`.
pub fn one(args: &[String]) -> Result {
    let (name, args) = args.split_first().ok_or("usage: cargo xtask fuzz [TARGET [LIBFUZZER_ARGUMENT]...]")?;
    let names = names()?;
    if !names.contains(name) {
        return Err(format!("{name}: no such target; there are {}", names.join(", ")));
    }
    let programs = build()?;
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|dir| Path::new("fuzz").join(dir).join(name));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    run(command(&programs, name, &corpus, &artifacts).args(args))
}

/// Every target for a while, one on each core.
pub fn check() -> Result {
    let programs = build()?;
    let scratch = web::target()?.join("fuzz").join("scratch");
    empty(&scratch)?;
    let names = names()?;
    let (waiting, failed) = (Mutex::new(names.iter()), Mutex::new(Vec::new()));
    let next = || waiting.lock().expect("no thread panics").next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = next() {
                    match fuzz(&programs, name, &scratch) {
                        Ok(executions) => println!("{name}: {executions} executions"),
                        Err(error) => failed.lock().expect("no thread panics").push(format!("{name}: {error}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Runs one target. Returns the number of executions, which must be more than those of the seeds.
fn fuzz(programs: &Path, name: &str, scratch: &Path) -> Result<u64> {
    let corpus = scratch.join(name);
    empty(&corpus)?;
    let mut command = command(programs, name, &corpus, scratch);
    let output = command.arg(format!("-max_total_time={SECONDS}")).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    let stat = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    match (output.status.success(), text.lines().find_map(stat)) {
        (true, Some(executions)) if executions > seeds(name)? => Ok(executions),
        (_, executions) => {
            let Output { status, .. } = output;
            let end: Vec<&str> = text.lines().rev().take(40).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            Err(format!("{}\n{status}, {} executions", end.join("\n"), executions.unwrap_or(0)))
        }
    }
}

fn command(programs: &Path, name: &str, corpus: &Path, artifacts: &Path) -> Command {
    let mut command = Command::new(programs.join(name));
    command.args([corpus, &Path::new("fuzz/seeds").join(name)]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-timeout=20", "-rss_limit_mb=1024"]);
    // Inputs that run faster are changed more often.
    command.arg("-entropic_scale_per_exec_time=1");
    // Files of a moment belong in memory.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        command.env("TMPDIR", memory);
    }
    command
}

/// Builds all targets and returns their folder.
fn build() -> Result<PathBuf> {
    let dir = web::target()?.join("fuzz");
    let host = host()?;
    // Given a target, cargo leaves build scripts and macros alone.
    let build = format!("build --bins --locked --manifest-path fuzz/Cargo.toml --target {host} --target-dir");
    run(cargo_command(&build).arg(&dir).env("RUSTFLAGS", FLAGS))?;
    Ok(dir.join(host).join("debug"))
}

/// The targets, by the names of their files.
fn names() -> Result<Vec<String>> {
    let error = |e| format!("fuzz/fuzz_targets: {e}");
    let files =
        fs::read_dir("fuzz/fuzz_targets").and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(error)?;
    let stem = |file: &fs::DirEntry| Some(file.path().file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = files.iter().filter_map(stem).collect();
    names.sort();
    Ok(names)
}

/// Number of the seeds of a target, of which there must be some.
fn seeds(name: &str) -> Result<u64> {
    let dir = Path::new("fuzz/seeds").join(name);
    let count = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?.count();
    if count > 0 { Ok(count as u64) } else { Err(format!("{}: no seeds", dir.display())) }
}
