//! `cargo xtask mutants`: faults put into the program one at a time, each of which a test must notice.
//!
//! The tables in `xtask/mutants` name the faults. A fault replaces text in one file or several:
//!
//! ```toml
//! [[mutant]]
//! name = "temperature-ignored"
//! tests = ["server draws::"]
//! "src/infer/sampling.rs" = "temperature: «self.temperature ⇒ 0.8»,"
//! ```
//!
//! The text around the marks says where; it must occur once in the file. `tests` are the programs of tests that notice it first,
//! each with words that the names of its tests contain. `survives = "..."` says why no test can notice it.
//!
//! All faults go into one copy of the tree, `target/mutants`, which is built once: Rust chooses by the environment variable
//! `MUTANT` when it runs, shaders and scripts when they are loaded. The copy shares the build folder with this tree.

use super::{Result, cargo_command, web};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

const TABLES: &str = "xtask/mutants";
/// Faults of several areas whose tests are quick, for continuous integration.
const SAMPLE: [&str; 8] = [
    "keys-are-not-rotated",
    "gradient-of-the-gate-10-percent-off",
    "muon-without-nesterov",
    "windows-in-order",
    "resume-forgets-skipped-steps",
    "trits-in-another-order",
    "a-client-writes-control-tokens",
    "every-token-is-drawn-with-the-same-number",
];
/// Seconds in which one program of tests must end.
const LIMIT: &str = "600";

/// Goes to the end of `cpu_kernels`, on which everything else is built.
const SUPPORT: &str = r#"
/// Whether this fault is on.
pub fn mutant(name: &str) -> bool {
    static ON: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("MUTANT").ok());
    ON.as_deref() == Some(name)
}

/// A shader or script with the fault that is on.
pub fn mutated(text: &str) -> &'static str {
    let mut text = text.to_string();
    for (at, _) in text.clone().rmatch_indices("/*mutant:") {
        let (name, rest) = text[at + "/*mutant:".len()..].split_once("*/").unwrap();
        let (from, rest) = rest.split_once("/*or:").unwrap();
        let (to, rest) = rest.split_once("*/").unwrap();
        text = format!("{}{}{rest}", &text[..at], if mutant(name) { to } else { from });
    }
    text.leak()
}
"#;

/// A fault.
struct Mutant {
    name: String,
    tests: Vec<String>,
    /// Why no test can notice it.
    survives: Option<String>,
    places: Vec<Place>,
}

/// Where a file is changed, and to what.
struct Place {
    file: String,
    range: Range<usize>,
    from: String,
    to: String,
}

/// `cargo xtask mutants` with its arguments.
pub fn mutants(args: &[String]) -> Result {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(None, false),
        ["--wide"] => run(None, true),
        ["--check"] => check(),
        ["--only", ref names @ ..] if !names.is_empty() => run(Some(names), true),
        _ => Err("usage: cargo xtask mutants [--wide | --check | --only NAME...]".into()),
    }
}

/// Checks that every fault still has its place in the tree.
pub fn check() -> Result {
    let (loaders, mutants) = read()?;
    println!("{} mutants in {TABLES}, each in its place", mutants.len());
    rewrite(&loaders, &mutants).map(drop)
}

/// Runs a few faults.
pub fn sample() -> Result {
    run(Some(&SAMPLE), false)
}

/// Runs the faults of these names, or all. If no test named by the table notices one and `wide` is set, all others are tried.
fn run(names: Option<&[&str]>, wide: bool) -> Result {
    let (loaders, mutants) = read()?;
    let chosen = |name: &str| names.is_none_or(|names| names.contains(&name));
    if let Some(name) = names.into_iter().flatten().find(|name| !mutants.iter().any(|m| m.name == **name)) {
        return Err(format!("no table has a mutant {name}"));
    }
    let tree = copy(&rewrite(&loaders, &mutants)?)?;
    let programs = build(&tree)?;
    let chosen: Vec<&Mutant> = mutants.iter().filter(|m| chosen(&m.name)).collect();
    let mut needed: Vec<&String> = chosen.iter().flat_map(|m| &m.tests).collect();
    needed.sort();
    needed.dedup();
    for tests in needed {
        if let Some(failed) = fails(&tree, &programs, tests, "")? {
            return Err(format!("{tests}: {failed} fails without a fault"));
        }
    }
    let (mut killed, mut excused, mut survivors) = (0, 0, Vec::new());
    for m in chosen {
        let more = programs.keys().filter(|_| wide && m.survives.is_none());
        let mut by = None;
        for tests in m.tests.iter().chain(more) {
            if let Some(failed) = fails(&tree, &programs, tests, &m.name)? {
                by = Some(format!("{}: {failed}", tests.split(' ').next().unwrap_or_default()));
                break;
            }
        }
        match (by, &m.survives) {
            (Some(by), _) => {
                killed += 1;
                println!("killed    {} by {by}", m.name);
            }
            (None, Some(why)) => {
                excused += 1;
                println!("survived  {}, as it must: {why}", m.name);
            }
            (None, None) => {
                println!("SURVIVED  {}", m.name);
                survivors.push(m.name.as_str());
            }
        }
    }
    println!("{killed} killed, {excused} survived for a reason, {} survived", survivors.len());
    if survivors.is_empty() { Ok(()) } else { Err(format!("no test noticed {}", survivors.join(", "))) }
}

/// The tables: changes that load shaders and scripts, and the faults.
fn read() -> Result<(Vec<Place>, Vec<Mutant>)> {
    let dir = fs::read_dir(TABLES).map_err(|e| format!("{TABLES}: {e}"))?;
    let mut files: Vec<PathBuf> = dir.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let (mut loaders, mut mutants, mut lost) = (Vec::new(), Vec::<Mutant>::new(), Vec::new());
    for file in files {
        let wrong = |e: String| format!("{}: {e}", file.display());
        let table: Table = fs::read_to_string(&file)
            .map_err(|e| e.to_string())
            .and_then(|text| text.parse().map_err(|e: toml::de::Error| e.to_string()))
            .map_err(wrong)?;
        let list =
            |key: &str| table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
        for entry in list("loader") {
            loaders.extend(places(entry).map_err(wrong)?);
        }
        for entry in list("mutant") {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(String::from);
            let name = text("name").ok_or_else(|| wrong("a mutant has no name".into()))?;
            let within = |e: String| wrong(format!("{name}: {e}"));
            let tests = entry.get("tests").and_then(Value::as_array).into_iter().flatten();
            let tests: Vec<String> = tests.filter_map(Value::as_str).map(String::from).collect();
            let places = places(entry).unwrap_or_else(|e| {
                lost.push(format!("{name}: {e}"));
                Vec::new()
            });
            let survives = text("survives");
            if tests.is_empty() || places.is_empty() && lost.is_empty() || mutants.iter().any(|m| m.name == name) {
                return Err(within("a mutant has tests, a place and a name of its own".into()));
            }
            mutants.push(Mutant { name, tests, survives, places });
        }
    }
    if lost.is_empty() { Ok((loaders, mutants)) } else { Err(format!("{TABLES}:\n{}", lost.join("\n"))) }
}

/// The places of a table's entry: the keys that are names of files.
fn places(entry: &Table) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for (file, marked) in entry.iter().filter(|(key, _)| key.contains('/')) {
        let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        let marked = marked.as_array().map_or(std::slice::from_ref(marked), Vec::as_slice);
        for marked in marked.iter().filter_map(Value::as_str) {
            let parts = || {
                let (before, rest) = marked.split_once('«')?;
                let (change, after) = rest.split_once('»')?;
                let (from, to) = change.split_once(" ⇒")?;
                Some((before, from, to.trim_start(), after))
            };
            let (before, from, to, after) = parts().ok_or_else(|| format!("{marked:?} has no «from ⇒ to»"))?;
            let around = format!("{before}{from}{after}");
            let found: Vec<usize> = text.match_indices(&around).map(|(at, _)| at + before.len()).collect();
            let [at] = found[..] else {
                return Err(format!("{around:?} is {} times in {file}, not once", found.len()));
            };
            places.push(Place { file: file.clone(), range: at..at + from.len(), from: from.into(), to: to.into() });
        }
    }
    Ok(places)
}

/// The changed files: every fault, chosen by its name.
fn rewrite(loaders: &[Place], mutants: &[Mutant]) -> Result<BTreeMap<String, String>> {
    let mut changes: Vec<(&Place, String)> = loaders.iter().map(|place| (place, place.to.clone())).collect();
    for Mutant { name, places, .. } in mutants {
        changes.extend(places.iter().map(|place| (place, choice(name, place))));
    }
    // From the end, so that the places before stay where they are.
    changes.sort_by_key(|(place, _)| (place.file.clone(), std::cmp::Reverse(place.range.start)));
    for pair in changes.windows(2) {
        let (later, earlier) = (pair[0].0, pair[1].0);
        if later.file == earlier.file && earlier.range.end > later.range.start {
            return Err(format!("{}: two faults change {:?}", later.file, later.from));
        }
    }
    let mut files = BTreeMap::new();
    for (Place { file, range, .. }, text) in changes {
        let read = || fs::read_to_string(file).map_err(|e| format!("{file}: {e}"));
        let changed = match files.remove(file) {
            Some(changed) => changed,
            None => read()?,
        };
        files.insert(file.clone(), format!("{}{text}{}", &changed[..range.start], &changed[range.end..]));
    }
    let base = "cpu_kernels/src/lib.rs";
    let text = files.remove(base).map_or_else(|| fs::read_to_string(base), Ok).map_err(|e| format!("{base}: {e}"))?;
    files.insert(base.into(), text + SUPPORT);
    Ok(files)
}

/// Text that is the fault if it is on, and what was there if not.
fn choice(name: &str, Place { file, from, to, .. }: &Place) -> String {
    if !file.ends_with(".rs") {
        return format!("/*mutant:{name}*/{from}/*or:{to}*/");
    }
    let home = if file.starts_with("cpu_kernels/src/") { "crate" } else { "cpu_kernels" };
    let choice = format!("if {home}::mutant(\"{name}\") {{ {to} }} else {{ {from} }}");
    if from.ends_with(';') || to.ends_with(';') { choice } else { format!("({choice})") }
}

/// Copies the tree with the changed files. Files that are as they were keep their times, so that little is built again.
fn copy(changed: &BTreeMap<String, String>) -> Result<PathBuf> {
    let tree = web::target()?.join("mutants");
    let listed = Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
    let listed = listed.map_err(|e| format!("git: {e}"))?.stdout;
    let listed = String::from_utf8(listed).map_err(|e| e.to_string())?;
    let files: BTreeSet<&str> = listed.split_terminator('\0').filter(|file| Path::new(file).is_file()).collect();
    if tree.exists() {
        let kept = |path: &Path| path.strip_prefix(&tree).is_ok_and(|p| files.contains(&*p.to_string_lossy()));
        sweep(&tree, &kept).map_err(|e| format!("{}: {e}", tree.display()))?;
    }
    for file in files {
        let text = match changed.get(file) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(file).map_err(|e| format!("{file}: {e}"))?,
        };
        let to = tree.join(file);
        if fs::read(&to).is_ok_and(|old| old == text) {
            continue;
        }
        let parent = to.parent().expect("a file in the tree");
        fs::create_dir_all(parent).and_then(|()| fs::write(&to, text)).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(tree)
}

/// Deletes the files of a folder that are not kept.
fn sweep(dir: &Path, kept: &impl Fn(&Path) -> bool) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sweep(&path, kept)?;
        } else if !kept(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Builds the tests. Returns their programs by name; that of the library is `lib`.
fn build(tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo_command("test --workspace --no-run --locked");
    let output = command.current_dir(tree).env("CARGO_TARGET_DIR", web::target()?).output();
    let output = output.map_err(|e| format!("cargo: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let errors = said.find("\nerror").map_or(&*said, |at| &said[at..]);
        return Err(format!("the tree with all faults does not compile:\n{errors}"));
    }
    let program = |line: &str| {
        let (name, path) = line.trim().strip_prefix("Executable ")?.strip_suffix(')')?.split_once(" (")?;
        let path = tree.join(path);
        let stem = path.file_stem()?.to_str()?.rsplit_once('-')?.0.to_string();
        let stem = if name == "unittests src/lib.rs" && stem == "nanotern" { "lib".into() } else { stem };
        (name != "unittests src/main.rs").then_some((stem, path))
    };
    Ok(said.lines().filter_map(program).collect())
}

/// Runs a program of tests with a fault, and returns what failed.
fn fails(tree: &Path, programs: &BTreeMap<String, PathBuf>, tests: &str, mutant: &str) -> Result<Option<String>> {
    let (name, filter) = tests.split_once(' ').unwrap_or((tests, ""));
    let program = programs.get(name).ok_or_else(|| format!("there is no program of tests {name}"))?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program).args(filter.split_whitespace()).current_dir(tree);
    // A test that does not run notices nothing.
    command.env("MUTANT", mutant).env("NANOTERN_REQUIRE_GPU", "1").env("NANOTERN_REQUIRE_BROWSER", "1");
    command.env_remove("RUST_BACKTRACE");
    let output = command.output().map_err(|e| format!("timeout: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        let none = !filter.is_empty() && said.contains("running 0 tests");
        return if none { Err(format!("no test is called {tests}")) } else { Ok(None) };
    }
    let failed =
        said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(String::from));
    Ok(Some(failed.unwrap_or_else(|| format!("the program ended with {}", output.status))))
}
