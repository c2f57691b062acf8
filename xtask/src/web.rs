//! `cargo xtask web` builds the browser demo into `target/web` and serves it on this machine.
//!
//! It compiles the module with SIMD, lets `xtask/bindgen` write the JavaScript side, and adds the page (`web/www`), the code
//! that it shares with the server's page (`ui`), and a model that it trains once. Any server of static files can then publish
//! `target/web`. `cargo xtask web-test` tests it in a browser.

use super::serve::{listen, serve};
use super::{Result, WASM, WASM_FLAGS, cargo_command, has_wasm, run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

const USAGE: &str = "\
usage: cargo xtask web [--build] [--port N] [--model FILE]

  --build       only build target/web
  --port N      serve on this port of 127.0.0.1 (8000; 0 takes a free one)
  --model FILE  the model to ship; target/web-model/model.gguf by default, which is trained if it does not exist";

/// Trains the model to ship. A debug build would take several times as long.
const NANOTERN: &str = "run --release -p nanotern --";

struct Options {
    build: bool,
    port: u16,
    model: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut options = Options { build: false, port: 8000, model: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--build" => options.build = true,
                "--port" => options.port = value()?.parse().map_err(|e| format!("--port: {e}"))?,
                "--model" => options.model = Some(value()?.into()),
                _ => return Err(format!("{arg} is unknown\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

pub fn web(args: &[String]) -> Result {
    let options = Options::parse(args)?;
    // Check the port and the file before minutes of work.
    let listener = (!options.build).then(|| listen(options.port)).transpose()?;
    if let Some(file) = options.model.as_ref().filter(|file| !file.is_file()) {
        return Err(format!("{}: no such file", file.display()));
    }
    let target = target()?;
    let out = build(&target)?;
    let model = match options.model {
        Some(file) => file,
        None => trained_model(&target)?,
    };
    copy(&model, &out.join("model.gguf"))?;
    report(&out)?;
    listener.map_or(Ok(()), |listener| serve(&listener, &out))
}

/// Tests the demo in Chromium. The tests make their own models.
pub fn test() -> Result {
    if !can_compile() && env::var("NANOTERN_REQUIRE_BROWSER").as_deref() != Ok("1") {
        println!("NOT TESTED on the web: this toolchain has no {WASM} and rustup cannot add it.");
        return Ok(());
    }
    let out = build(&target()?)?;
    report(&out)?;
    run(cargo_command("test --workspace --test web -- --nocapture").env("NANOTERN_WEB", out))
}

/// The build folder.
pub fn target() -> Result<PathBuf> {
    let here = env::current_exe().map_err(|e| e.to_string())?;
    here.ancestors().nth(2).map(Path::to_path_buf).ok_or("this program has no folder".into())
}

/// Builds everything except the model; returns the folder.
fn build(target: &Path) -> Result<PathBuf> {
    let out = target.join("web");
    let module = compile(target)?;
    bindgen(target, &module, &out)?;
    copy_all(Path::new("ui"), &out)?;
    copy_all(Path::new("web/www"), &out)?;
    Ok(out)
}

/// Whether the toolchain compiles for browsers; asks rustup to add the target if it is missing.
pub fn can_compile() -> bool {
    let added = || Command::new("rustup").args(["target", "add", WASM]).status().is_ok_and(|s| s.success());
    has_wasm() || added()
}

/// Compiles the wasm module; returns its path.
fn compile(target: &Path) -> Result<PathBuf> {
    if !can_compile() {
        return Err(format!(
            "this toolchain cannot compile for browsers: `rustup target add {WASM}`, or install a Rust that has it"
        ));
    }
    let build = format!("build -p nanotern-web --profile browser --locked --target {WASM} --target-dir");
    run(cargo_command(&build).arg(target).env(WASM_FLAGS.0, WASM_FLAGS.1))?;
    Ok(target.join(WASM).join("browser/nanotern_web.wasm"))
}

/// Writes the module and its JavaScript side to `out`.
fn bindgen(target: &Path, module: &Path, out: &Path) -> Result {
    let locked = locked_version("Cargo.lock", "wasm-bindgen")?;
    let ours = locked_version("xtask/bindgen/Cargo.lock", "wasm-bindgen-cli-support")?;
    if locked != ours {
        return Err(format!("Cargo.lock has wasm-bindgen {locked}, xtask/bindgen {ours}: they must be the same"));
    }
    let dir = target.join("bindgen");
    run(cargo_command("build --locked --manifest-path xtask/bindgen/Cargo.toml --target-dir").arg(&dir))?;
    fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    run(Command::new(dir.join(format!("debug/bindgen{}", env::consts::EXE_SUFFIX))).arg(module).arg(out))?;
    let path = out.join("nanotern_web.js");
    let error = |e| format!("{}: {e}", path.display());
    let code = bare(&fs::read_to_string(&path).map_err(error)?);
    fs::write(&path, code).map_err(error)
}

/// JavaScript as wasm-bindgen writes it, without its comments and indentation.
fn bare(code: &str) -> String {
    let mut comment = false;
    let mut kept = String::with_capacity(code.len());
    for line in code.lines().map(str::trim_start) {
        let begins = line.starts_with("/**");
        if !(comment || begins || line.starts_with("//")) {
            kept.push_str(line);
            kept.push('\n');
        }
        comment = (comment || begins) && !line.ends_with("*/");
    }
    kept
}

/// The version of a package in a lock file.
fn locked_version(file: &str, package: &str) -> Result<String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let mut lines = text.lines().skip_while(|line| *line != format!("name = \"{package}\"")).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(String::from).ok_or_else(|| format!("{file} has no {package}"))
}

/// The model to ship: what `nanotern train` makes with its defaults, trained once.
fn trained_model(target: &Path) -> Result<PathBuf> {
    let dir = target.join("web-model");
    let model = dir.join("model.gguf");
    if !model.exists() {
        println!("\n{} does not exist yet. It is trained now, once, on the CPU.", model.display());
        println!("That takes two to eight minutes on two cores, after a build. `--model FILE` ships another model.\n");
        let training = dir.join("run");
        if training.exists() {
            fs::remove_dir_all(&training).map_err(|e| format!("{}: {e}", training.display()))?;
        }
        let train = format!("{NANOTERN} train --backend cpu --dataset synthetic --checkpoint-dir");
        run(cargo_command(&train).arg(&training))?;
        // 8-bit tables make it a fifth smaller, and it answers as many questions.
        let export = format!("{NANOTERN} export --tables q8_0 --checkpoint");
        run(cargo_command(&export).arg(&training).arg("--output").arg(&model))?;
    }
    Ok(model)
}

fn copy(from: &Path, to: &Path) -> Result {
    fs::copy(from, to).map(|_| ()).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}

fn copy_all(from: &Path, to: &Path) -> Result {
    for entry in fs::read_dir(from).map_err(|e| format!("{}: {e}", from.display()))?.flatten() {
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Prints the size of each file that a browser fetches, plain and gzipped.
fn report(out: &Path) -> Result {
    let mut files: Vec<PathBuf> =
        fs::read_dir(out).map_err(|e| format!("{}: {e}", out.display()))?.flatten().map(|e| e.path()).collect();
    files.retain(|f| !f.to_string_lossy().ends_with(".d.ts"));
    files.sort();
    let (mut raw, mut gzipped) = (0, Some(0));
    println!("{:24} {:>10} {:>10}", "", "bytes", "gzipped");
    for file in files {
        let bytes = fs::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?.len();
        let small = gzip(&file);
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:24} {bytes:>10} {:>10}", small.map_or("?".into(), |s| s.to_string()));
        if name != "model.gguf" {
            raw += bytes;
            gzipped = gzipped.zip(small).map(|(a, b)| a + b);
        }
    }
    println!("{:24} {raw:>10} {:>10}", "without the model", gzipped.map_or("?".into(), |s: u64| s.to_string()));
    Ok(())
}

/// Size of a file after `gzip -9`; none if that program is missing.
fn gzip(file: &Path) -> Option<u64> {
    let output = Command::new("gzip").args(["-9", "-c"]).arg(file).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout.len() as u64)
}
