//! `cargo xtask` runs the checks of the project, one by its name or all of them as `ci`, and builds the browser demo (`web`).
//!
//! `.ci/run` installs what a bare machine lacks (a Vulkan driver, a Python with TensorBoard) and then calls `cargo xtask ci`.
//! The caller sets the profile through the environment. This program does not change it, because everything would be built
//! a second time for another profile.

mod floors;
mod fuzz;
mod mutants;
mod serve;
mod validate;
mod web;

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs, iter};

type Result<T = ()> = std::result::Result<T, String>;
type Stage = (&'static str, &'static str, fn() -> Result);

/// The test command in the README.
const TEST: &str = "cargo test --workspace";
const ARM: &str = "aarch64-unknown-linux-gnu";
const WASM: &str = "wasm32-unknown-unknown";
/// Code for browsers uses SIMD.
const WASM_FLAGS: (&str, &str) = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128");

/// What the library must not build without the features that need it.
const NOT_IN_THE_LIBRARY: [&str; 6] = ["clap", "hyper", "indicatif", "tokio", "ureq", "warp"];
/// Cargo projects outside of the workspace.
const APART: [&str; 3] = ["benches/peers/gemm", "fuzz", "xtask/bindgen"];

/// A stage that `ci` leaves out: it takes minutes and gigabytes, and its cases are tests too.
const NOT_IN_CI: &str = "strangers";

const STAGES: [Stage; 19] = [
    ("fmt", "formatting", fmt),
    ("floors", "no module imports from above", floors::check),
    ("lint", "clippy; warnings are errors", lint),
    ("features", "each feature compiles without the others, and the library needs no server or command line", features),
    ("deny", "licences, sources and duplicates of the dependencies", deny),
    ("doc", "documentation; warnings are errors", doc),
    ("test", "the test command of the README", test),
    ("cuda", "shaders as CUDA: compiled by NVRTC, run on the CPU; Parquet is read", cuda),
    ("matrices", "shaders with cooperative matrices, on a Mesa that has them: the folder NANOTERN_MESA", matrices),
    ("arm", "the kernels of the CPU on 64-bit Arm, with and without products of bytes, under qemu", arm),
    ("asan", "the kernels of the CPU under AddressSanitizer", asan),
    (
        "fuzz",
        "the parsers, each fuzzed for 20 seconds (`fuzz TARGET [ARGUMENT]...`: that one, with arguments of libFuzzer)",
        fuzz::check,
    ),
    ("wasm", "library and demo compile for browsers: wasm32, default features off", wasm),
    ("apart", "the peers' benchmark and bindgen compile", apart),
    ("package", "the published crates build from their packages alone", package),
    ("web-test", "the browser demo, built and tested in Chromium", web::test),
    ("smoke", "the program and the examples: doctor, training on the CPU and, if there is an adapter, on wgpu", smoke),
    ("strangers", "texts, folders and habits of strangers, where their cases are beside this folder", strangers),
    (
        "mutants",
        "faults that a test must notice: here a few, alone all (`--wide`, `--check`, `--only NAME...`)",
        mutants::sample,
    ),
];

/// A configuration small enough for an unoptimised build and a software GPU.
const MICRO: &str = "\
[model]
dim = 64
layers = 2
heads = 2
kv_heads = 1
ffn = 128
seq_len = 32
group_size = 64
mhc_streams = 2
[data]
dataset = \"text\"
path = \"corpus.txt\"
tokenizer = \"bytes\"
[train]
batch_size = 2
total_steps = 2
eval_windows = 2
log_interval = 1
";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    env::set_current_dir(root).expect("the workspace is there");
    let wanted = env::args().nth(1).unwrap_or_default();
    let args: Vec<String> = env::args().skip(2).collect();
    let alone: Option<fn(&[String]) -> Result> = match &*wanted {
        "web" => Some(web::web),
        "mutants" => Some(mutants::mutants),
        "validate" => Some(validate::validate),
        "fuzz" if !args.is_empty() => Some(fuzz::one),
        _ => None,
    };
    if let Some(run) = alone {
        return run(&args).map_or_else(|error| fail(&wanted, &error), |()| ExitCode::SUCCESS);
    }
    let stages: Vec<Stage> =
        STAGES.into_iter().filter(|(name, ..)| wanted == *name || wanted == "ci" && *name != NOT_IN_CI).collect();
    if stages.is_empty() {
        eprintln!("usage: cargo xtask CHECK\n\n  ci       all of these but {NOT_IN_CI}");
        STAGES.iter().for_each(|(name, what, _)| eprintln!("  {name:8} {what}"));
        eprintln!("\n  validate the program from end to end in half a minute (`--release`: as users build it)");
        eprintln!("  web      the browser demo, built and served (`--build`: only built)");
        return ExitCode::from(2);
    }
    let mut times = Vec::new();
    for (name, what, check) in stages {
        println!("\n== {name}: {what}");
        let start = Instant::now();
        if let Err(error) = check() {
            return fail(name, &error);
        }
        times.push(format!("{name} {:.0} s", start.elapsed().as_secs_f64()));
    }
    println!("\npassed: {}", times.join(", "));
    ExitCode::SUCCESS
}

fn fail(name: &str, error: &str) -> ExitCode {
    eprintln!("\n{name} failed: {error}");
    ExitCode::FAILURE
}

fn fmt() -> Result {
    cargo("fmt --all --check")
}

fn lint() -> Result {
    mutants::check()?;
    cargo("clippy --workspace --all-targets --features nanotern/cuda --locked -- -D warnings")?;
    cargo("clippy --workspace --lib --bins --locked -- -D warnings")?;
    if has_std(ARM) {
        cargo(&format!("clippy -p cpu_kernels --all-targets --locked --target {ARM} -- -D warnings"))?;
    }
    if !has_wasm() {
        println!("NOT LINTED FOR WASM32: this toolchain has no {WASM}.");
        return Ok(());
    }
    // The code of browsers, with the instructions that they are given.
    let clippy = format!("clippy -p nanotern-web --locked --target {WASM} -- -D warnings");
    run(cargo_command(&clippy).env(WASM_FLAGS.0, WASM_FLAGS.1))
}

fn features() -> Result {
    let library = "-p nanotern --locked --no-default-features --features native";
    let mut tree = cargo_command(&format!("tree {library} --edges normal,build --prefix none"));
    let output = tree.output().map_err(|e| format!("cargo tree: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    let crates = || tree.lines().filter_map(|line| line.split(' ').next());
    if let Some(found) = crates().find(|name| NOT_IN_THE_LIBRARY.contains(name)) {
        return Err(format!("`cargo tree {library}` has {found}, which the library must not need"));
    }
    cargo(&format!("clippy {library} --all-targets -- -D warnings"))?;
    for feature in ["download", "serve", "parquet"] {
        cargo(&format!("clippy -p nanotern --locked --no-default-features --features {feature} --lib -- -D warnings"))?;
    }
    Ok(())
}

/// The workspace and the projects apart, by `deny.toml`. The database of advisories is fetched only if that is asked for.
fn deny() -> Result {
    let required = |name: &str| env::var(name).as_deref() == Ok("1");
    if !cargo_command("deny --version").output().is_ok_and(|o| o.status.success()) {
        if required("NANOTERN_REQUIRE_DENY") {
            return Err("this machine has no cargo-deny".into());
        }
        println!("NOT CHECKED: this machine has no cargo-deny.");
        return Ok(());
    }
    let audit = required("NANOTERN_REQUIRE_AUDIT");
    let checks = if audit { "advisories bans licenses sources" } else { "bans licenses sources" };
    for dir in iter::once(".").chain(APART) {
        // A project apart does not need all that is listed for the workspace.
        let fewer = if dir == "." { "" } else { " -A unmatched-skip -A unnecessary-skip" };
        let from = format!("--manifest-path {dir}/Cargo.toml --config deny.toml");
        cargo(&format!("deny --locked --all-features {from} check {checks}{fewer}"))?;
    }
    if !audit {
        println!("NOT AUDITED: the advisories of RustSec are fetched with NANOTERN_REQUIRE_AUDIT=1 only.");
    }
    Ok(())
}

fn doc() -> Result {
    let doc = "doc -p nanotern -p cpu_kernels --no-deps --features nanotern/cuda --locked";
    run(cargo_command(doc).env("RUSTDOCFLAGS", "-D warnings"))
}

fn test() -> Result {
    let readme = fs::read_to_string("README.md").map_err(|e| format!("README.md: {e}"))?;
    if !readme.lines().any(|line| line.trim_start_matches([' ', '$', '`']).starts_with(TEST)) {
        return Err(format!("README.md does not give the test command, `{TEST}`"));
    }
    cargo(&format!("{} --locked", TEST.strip_prefix("cargo ").unwrap_or(TEST)))
}

/// What the tests of the README leave out, since neither feature is a default. Without an NVIDIA GPU they change nothing in other tests.
fn cuda() -> Result {
    let test = "test --workspace --features nanotern/cuda,nanotern/parquet --locked";
    cargo(&format!("{test} --test cuda"))?;
    cargo(&format!("{test} --lib data::"))
}

/// The programs and libraries of a newer Debian, unpacked: the test runs by its loader, with its software Vulkan.
fn matrices() -> Result {
    let test = "test --locked --test op_parity variants";
    let Some(root) = env::var_os("NANOTERN_MESA").map(PathBuf::from) else {
        return cargo(test);
    };
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let loader = libraries.join("ld-linux-x86-64.so.2");
    let runner = format!("{} --library-path {}", loader.display(), libraries.display());
    let mut command = cargo_command(test);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    command.env("VK_DRIVER_FILES", root.join("usr/share/vulkan/icd.d/lvp_icd.json"));
    run(command.env("NANOTERN_REQUIRE_MATRICES", "1"))
}

/// Each core that is emulated, and the best SIMD level that it has.
const ARM_CORES: [(&str, &str); 2] = [("cortex-a53", "neon"), ("max", "dotprod")];

fn arm() -> Result {
    if cfg!(target_arch = "aarch64") {
        println!("This is an Arm machine: `test` has tested its kernels.");
        return Ok(());
    }
    // Where rustup's toolchain has no library for Arm, another one is unpacked there.
    let other = env::var_os("NANOTERN_ARM_RUST").map(PathBuf::from);
    let added = || Command::new("rustup").args(["target", "add", ARM]).status().is_ok_and(|s| s.success());
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    let missing = [
        ("a Rust that compiles for it", other.is_some() || has_std(ARM) || added()),
        ("aarch64-linux-gnu-gcc", runs("aarch64-linux-gnu-gcc")),
        ("qemu-aarch64", runs("qemu-aarch64")),
    ];
    if let Some((what, _)) = missing.into_iter().find(|(_, there)| !there) {
        if env::var("NANOTERN_REQUIRE_ARM").as_deref() == Ok("1") {
            return Err(format!("this machine has no {what}"));
        }
        println!("NOT TESTED ON ARM: this machine has no {what}.");
        return Ok(());
    }
    for (core, level) in ARM_CORES {
        let mut command = cargo_command(&format!("test -p cpu_kernels --locked --target {ARM} --target-dir"));
        command.arg(web::target()?.join("arm"));
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        let runner = format!("qemu-aarch64 -cpu {core} -L /usr/aarch64-linux-gnu");
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        // A test fails where the best level is another one: where this core was not emulated, for one.
        command.env("NANOTERN_REQUIRE_LEVEL", level);
        // Emulated instructions are dear: the tests themselves are optimised too.
        command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
        if let Some(root) = &other {
            command.env("RUSTC", root.join("usr/bin/rustc"));
            command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        }
        run(&mut command)?;
    }
    Ok(())
}

/// Stable Rust has AddressSanitizer but does not offer it, hence `RUSTC_BOOTSTRAP`.
fn asan() -> Result {
    let host = host()?;
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("NOT SANITIZED: this is done on 64-bit x86 Linux only.");
        return Ok(());
    }
    // Given a target, cargo leaves build scripts and macros alone.
    let test = format!("test -p cpu_kernels --lib --tests --locked --target {host} --target-dir");
    let mut command = cargo_command(&test);
    command.arg(web::target()?.join("asan"));
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    run(&mut command)
}

fn wasm() -> Result {
    let check = "check -p nanotern -p nanotern-web --lib --locked --no-default-features";
    if web::can_compile() {
        return cargo(&format!("{check} --target {WASM}"));
    }
    println!("NOT CHECKED FOR WASM32: this toolchain has no {WASM} and rustup cannot add it.");
    println!("Checked instead: the library compiles for this machine with default features off.");
    cargo(check)
}

/// They share the build folder, and with it what they have in common with the workspace. `fuzz` builds the fuzzer.
fn apart() -> Result {
    for dir in APART.into_iter().filter(|dir| *dir != "fuzz") {
        let check = format!("check --locked --manifest-path {dir}/Cargo.toml --target-dir");
        run(cargo_command(&check).arg(web::target()?))?;
    }
    Ok(())
}

/// Packs what is published, and compiles what was packed. Cargo's own verification would reuse what it compiled of an
/// earlier package with the same version.
fn package() -> Result {
    cargo("package -p cpu_kernels -p nanotern --no-verify --locked --allow-dirty")?;
    let packages = web::target()?.join("package");
    let dir = packages.join("unpacked");
    empty(&dir)?;
    let names = ["cpu_kernels", "nanotern"].map(|name| format!("{name}-{}", env!("CARGO_PKG_VERSION")));
    for name in &names {
        let file = packages.join(format!("{name}.crate"));
        run(Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(&dir))?;
    }
    let [kernels, program] = &names;
    let workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"{kernels}\", \"{program}\"]\n\
         [patch.crates-io]\ncpu_kernels = {{ path = \"{kernels}\" }}\n"
    );
    let manifest = dir.join("Cargo.toml");
    fs::write(&manifest, workspace).map_err(|e| format!("{}: {e}", manifest.display()))?;
    fs::copy("Cargo.lock", dir.join("Cargo.lock")).map_err(|e| format!("Cargo.lock: {e}"))?;
    let mut check = cargo_command("check --workspace --target-dir");
    run(check.arg(web::target()?).arg("--manifest-path").arg(manifest))
}

/// Makes an empty folder.
fn empty(dir: &Path) -> Result {
    let error = |e| format!("{}: {e}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(error)?;
    }
    fs::create_dir_all(dir).map_err(error)
}

/// The target of this machine, as `rustc` names it.
fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--print", "host-tuple"]).output().map_err(|e| format!("rustc: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Whether the toolchain has a standard library for wasm32.
fn has_wasm() -> bool {
    has_std(WASM)
}

/// Whether the toolchain holds a standard library for a target.
fn has_std(target: &str) -> bool {
    let Ok(output) = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output() else {
        return false;
    };
    let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    fs::read_dir(dir).is_ok_and(|files| files.flatten().any(|f| f.file_name().to_string_lossy().starts_with("libstd")))
}

/// Builds the programs of the tests and returns their folder, and `nanotern` in it.
fn programs() -> Result<(PathBuf, PathBuf)> {
    // The features of the tests: any other selection would build the dependencies again.
    cargo("test --workspace --no-run --quiet --locked")?;
    let here = env::current_exe().map_err(|e| e.to_string())?;
    let build = here.parent().ok_or("this program has no folder")?.to_path_buf();
    let program = build.join(format!("nanotern{EXE_SUFFIX}"));
    Ok((build, program))
}

/// Runs a script that prints a line of PASS or FAIL for each case. A plain clone does not have it; its cases are tests here
/// too.
fn strangers() -> Result {
    let script = Path::new("../shared/cases/strangers/run_cases.sh");
    if !script.is_file() {
        println!("NOT CHECKED: there is no {}.", script.display());
        return Ok(());
    }
    let output = Command::new("bash").arg(script).arg(programs()?.1).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    match (output.status.success(), count("PASS"), count("FAIL")) {
        (true, 1.., 0) => Ok(()),
        (_, passed, failed) => Err(format!("{passed} cases passed, {failed} failed ({})", output.status)),
    }
}

fn smoke() -> Result {
    let (build, program) = programs()?;
    let dir = build.join("smoke");
    empty(&dir)?;
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).map_err(|e| format!("{name}: {e}"));
    write("micro.toml", MICRO)?;
    write("corpus.txt", &"the quick brown fox jumps over the lazy dog\n".repeat(64))?;
    let nanotern = |args: &str| run(Command::new(&program).args(args.split(' ')).current_dir(&dir));

    let example = |name: &str, args: &[&str]| {
        let program = build.join("examples").join(format!("{name}{EXE_SUFFIX}"));
        run(Command::new(program).args(args).current_dir(&dir))
    };

    nanotern("--version")?;
    nanotern("doctor")?;
    nanotern("train --config tiny --backend cpu --total-steps 3 --set train.eval_windows=2 --checkpoint-dir cpu")?;
    trained(&dir.join("cpu"), 3)?;
    nanotern("inspect cpu/final --json")?;
    nanotern("train --resume cpu --backend cpu --total-steps 4")?;
    trained(&dir.join("cpu"), 4)?;
    example("train", &["model.gguf"])?;
    example("inspect", &["model.gguf"])?;
    example("generate", &["model.gguf", "The "])?;
    let devices = Command::new(&program).args(["devices", "--json"]).output().map_err(|e| e.to_string())?;
    let adapter = String::from_utf8_lossy(&devices.stdout).contains(r#""backend":"wgpu""#);
    if adapter || env::var("NANOTERN_REQUIRE_GPU").as_deref() == Ok("1") {
        nanotern("train --config micro.toml --backend wgpu --checkpoint-dir wgpu")?;
        return trained(&dir.join("wgpu"), 2);
    }
    println!("NOT CHECKED ON WGPU: this machine has no adapter.");
    Ok(())
}

/// Checks that a run left every file it should, and logged step `step`.
fn trained(run: &Path, step: u64) -> Result {
    let path = run.join("metrics.jsonl");
    let metrics = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if !metrics.lines().any(|line| line.contains(&format!("\"step\":{step},"))) {
        return Err(format!("{}: no step {step} in\n{metrics}", path.display()));
    }
    for file in ["config.toml", "loss.svg", "final/model.safetensors", "final/manifest.json"] {
        if !run.join(file).is_file() {
            return Err(format!("{}: not there", run.join(file).display()));
        }
    }
    Ok(())
}

fn cargo(args: &str) -> Result {
    run(&mut cargo_command(args))
}

/// Cargo with arguments that have no spaces in them; add a path with `arg`.
fn cargo_command(args: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(args.split(' '));
    command
}

/// Prints a command and runs it.
fn run(command: &mut Command) -> Result {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let line = format!("{program} {}", args.join(" "));
    println!("$ {line}");
    let status = command.status().map_err(|e| format!("{line}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}`: {status}")) }
}
