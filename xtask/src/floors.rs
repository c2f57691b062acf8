//! `cargo xtask floors`: a module imports only from the floors beneath its own.
//!
//! The floors of a crate are declared once, in the documentation of its `lib.rs`: a block of text under the heading
//! `Floors`, the highest first, several names of one floor with commas between them, two spaces before what they are.
//! What `lib.rs` re-exports, and a macro, is on the floor of the module that defines it. Tests may import from anywhere.

use super::Result;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Crates that have floors: the folder of `lib.rs`.
const CRATES: [&str; 2] = ["src", "cpu_kernels/src"];

pub fn check() -> Result {
    let mut wrong = Vec::new();
    for root in CRATES {
        let mut files = BTreeMap::new();
        read(Path::new(root), "", &mut files)?;
        wrong.extend(upward(&files)?.into_iter().map(|what| format!("{root}/{what}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} upward imports\n{}", wrong.len(), wrong.join("\n"))) }
}

/// Collects the sources under `dir` by their paths relative to the crate, with `/` between names.
fn read(dir: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result {
    for entry in fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?.flatten() {
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            read(&path, &format!("{name}/"), files)?;
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    Ok(())
}

/// Every import that does not point downward, as `file:line: what`.
fn upward(files: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let lib = files.get("lib.rs").ok_or("no lib.rs")?;
    let floors = declared(lib)?;
    let modules: Vec<(&str, &str, &str)> = files
        .iter()
        .filter(|(path, _)| !["lib.rs", "main.rs"].contains(&path.as_str()))
        .map(|(path, text)| (path.as_str(), word(path), text.as_str()))
        .collect();
    // Names at the root of the crate that are no modules, and the modules they come from.
    let mut exports = BTreeMap::new();
    for export in lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        exports.extend(export.split(|c| !is_word(c)).map(|name| (name, word(export))));
    }
    for (path, module, text) in &modules {
        if !floors.contains_key(module) {
            return Err(format!("{path}: {module} is on no floor of lib.rs"));
        }
        exports.extend(text.split("macro_rules! ").skip(1).map(|rest| (word(rest), *module)));
    }
    let tests: Vec<String> = modules.iter().flat_map(|(path, _, text)| test_modules(path, text)).collect();
    let is_test =
        |path: &str| tests.iter().any(|test| path.strip_prefix(&**test).is_some_and(|r| r.starts_with(['.', '/'])));
    let mut wrong = Vec::new();
    for (path, own, text) in modules.iter().filter(|(path, ..)| !is_test(path)) {
        // As many steps up as the file is deep lead to the root; indented lines may stand in a module within the file.
        let depth = path.trim_end_matches("/mod.rs").matches('/').count() + 1;
        let code = code(text).replace(&format!("\nuse {}", "super::".repeat(depth)), "\nuse crate::");
        for (at, root) in code.match_indices("crate::") {
            for name in names(&code[at + root.len()..]) {
                let module = if floors.contains_key(name) { &name } else { exports.get(name).unwrap_or(&name) };
                if module != own && floors.get(module).is_none_or(|floor| *floor >= floors[own]) {
                    let line = code[..at].matches('\n').count() + 1;
                    wrong.push(format!("{path}:{line}: {name} is not beneath {own}"));
                }
            }
        }
    }
    Ok(wrong)
}

/// The floor of each module, counted from the ground.
fn declared(lib: &str) -> Result<BTreeMap<&str, usize>> {
    let section = lib.split("//! # Floors\n").nth(1).ok_or("lib.rs has no heading `Floors`")?;
    let block = section.split("```").nth(1).ok_or("lib.rs has no block of text under the heading `Floors`")?;
    let lines = block.lines().rev().map(|line| line.trim_start_matches("//!").trim());
    let floors = lines.filter_map(|line| line.split("  ").next()).enumerate();
    Ok(floors.flat_map(|(floor, modules)| modules.split(", ").map(move |module| (module, floor))).collect())
}

/// The modules in files of their own that a file declares for tests, as paths without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let dir = path.strip_suffix("/mod.rs").unwrap_or(path.trim_end_matches(".rs"));
    let declared = text.split("#[cfg(test)]\nmod ").skip(1).map(|rest| rest.split('\n').next().unwrap_or_default());
    declared.filter_map(|line| Some(format!("{dir}/{}", line.strip_suffix(';')?))).collect()
}

/// The text without comments and tests, which `rustfmt` closes at the indentation they start with; every line stays.
fn code(text: &str) -> String {
    let (mut code, mut test) = (String::new(), None);
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let indent = line.len() - line.trim_start().len();
        if ["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|attribute| line.trim_start().starts_with(attribute)) {
            test = test.or(Some(indent));
        } else if test.is_none() {
            code.push_str(line);
        } else if test == Some(indent) && line.ends_with([';', '}']) {
            test = None;
        }
        code.push('\n');
    }
    code
}

/// The names that follow `crate::`: one, or those of a group.
fn names(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut names, mut depth, mut next) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => next = true,
            c if next && is_word(c) => {
                names.push(word(&group[at..]));
                next = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "\
//! # Floors
//!
//! ```text
//! top          what people see
//! left, right  neighbours
//! ground       errors
//! ```
pub use ground::Error;
pub use right::{deep::Thing, other};
";

    fn wrong(path: &str, text: &str) -> Vec<String> {
        let files = [("lib.rs", LIB), (path, text)].map(|(path, text)| (path.to_string(), text.to_string()));
        upward(&files.into()).unwrap()
    }

    #[test]
    fn imports_from_beneath_pass() {
        assert_eq!(wrong("left/mod.rs", "use crate::{Error, ground::{a, top}};\nuse crate::left::x;\n"), [""; 0]);
        assert_eq!(wrong("top.rs", "use crate::{left::{a, b}, right};\nfn f() { crate::ground::g() }\n"), [""; 0]);
    }

    #[test]
    fn other_imports_are_named() {
        let left = |text: &str| wrong("left/mod.rs", text);
        assert_eq!(left("\nuse crate::top::X;\n"), ["left/mod.rs:2: top is not beneath left"]);
        assert_eq!(left("use crate::right::X;\n"), ["left/mod.rs:1: right is not beneath left"]);
        assert_eq!(
            left("use crate::{\n    ground::a,\n    Thing,\n};\n"),
            ["left/mod.rs:1: Thing is not beneath left"]
        );
        assert_eq!(left("fn f() -> crate::top::X {}\n"), ["left/mod.rs:1: top is not beneath left"]);
        assert_eq!(left("\nuse super::top::X;\n"), ["left/mod.rs:2: top is not beneath left"]);
        assert_eq!(left("use crate::cellar::X;\n"), ["left/mod.rs:1: cellar is not beneath left"]);
        assert_eq!(
            wrong("left/a/b.rs", "\nuse super::super::super::top;\n"),
            ["left/a/b.rs:2: top is not beneath left"]
        );
        assert_eq!(wrong("ground.rs", "use crate::Error;\nuse crate::m;\n"), ["ground.rs:2: m is not beneath ground"]);
        let files = [("lib.rs", LIB), ("attic.rs", "")].map(|(path, text)| (path.to_string(), text.to_string()));
        assert!(upward(&files.into()).is_err());
    }

    #[test]
    fn tests_and_comments_are_exempt() {
        let text = "\
//! [`crate::top`]
#[cfg(test)]
use crate::top::A;

fn f() {} // crate::top

#[cfg(test)]
mod tests {
    use crate::top::B;
}
use crate::ground::C;
#[cfg(any(test, feature = \"x\"))]
use crate::top::D;
";
        assert_eq!(wrong("left.rs", text), ["left.rs:13: top is not beneath left"]);
        assert_eq!(test_modules("left.rs", "#[cfg(test)]\nmod a;\nmod b;\n#[cfg(test)]\nmod c {\n}\n"), ["left/a"]);
        let files = [
            ("lib.rs", LIB),
            ("left/mod.rs", "mod b;\n#[cfg(test)]\nmod a;\n"),
            ("left/a.rs", "use crate::top::A;\n"),
            ("left/ab.rs", "use crate::top::B;\n"),
        ];
        let found = upward(&files.map(|(path, text)| (path.to_string(), text.to_string())).into()).unwrap();
        assert_eq!(found, ["left/ab.rs:1: top is not beneath left"]);
    }
}
