//! Environment variables: each flag declares its own, and a name that nothing reads is said.

use std::ffi::OsString;

/// How the names begin.
const PREFIX: &str = "NANOTERN_";

/// What tests and continuous integration read; see CONTRIBUTING.md.
const OF_TESTS: &[&str] = &[
    "NANOTERN_ARM_RUST",
    "NANOTERN_FOREIGN",
    "NANOTERN_GOLDEN",
    "NANOTERN_MESA",
    "NANOTERN_PYTHON",
    "NANOTERN_REQUIRE_ARM",
    "NANOTERN_REQUIRE_AUDIT",
    "NANOTERN_REQUIRE_BROWSER",
    "NANOTERN_REQUIRE_CXX",
    "NANOTERN_REQUIRE_DENY",
    "NANOTERN_REQUIRE_GPU",
    "NANOTERN_REQUIRE_LEVEL",
    "NANOTERN_REQUIRE_MATRICES",
    "NANOTERN_REQUIRE_NVRTC",
    "NANOTERN_SCREENSHOTS",
    "NANOTERN_TEST_CHILD",
    "NANOTERN_TEST_DAMAGE",
    "NANOTERN_TRIALS",
    "NANOTERN_WEB",
];

/// The variables of a command's flags and of its subcommands.
fn declared(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|flag| Some(flag.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(declared)).collect()
}

/// A warning for each name that begins as this program's do and that nothing reads.
pub fn warnings(command: &clap::Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let declared = declared(command);
    let known: Vec<&str> = declared.iter().map(String::as_str).chain(OF_TESTS.iter().copied()).collect();
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let ours = |name: &str| name.to_uppercase().starts_with(PREFIX);
    let unknown = names.filter(|name| ours(name) && !known.contains(&name.as_str()));
    let said = unknown.map(|name| {
        let upper = name.to_uppercase();
        let nearest = declared.iter().min_by_key(|known| strsim::damerau_levenshtein(&upper, known));
        let nearest = nearest.map(String::as_str).unwrap_or_default();
        format!("warning: the environment variable {name} is unknown and has no effect; the nearest name is {nearest}")
    });
    said.collect()
}

/// The variables that are empty, which are taken as unset.
pub fn empty() -> Vec<OsString> {
    let ours = |name: &OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    std::env::vars_os().filter(|(name, value)| value.is_empty() && ours(name)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    /// Adds every name in the files under `path`.
    fn collect(path: &Path, names: &mut Vec<OsString>) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), names));
        } else if let Ok(text) = std::fs::read_to_string(path) {
            let name = |rest: &str| {
                let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
                format!("{PREFIX}{}", &rest[..end])
            };
            names.extend(text.split(PREFIX).skip(1).map(name).filter(|n| n.len() > PREFIX.len()).map(OsString::from));
        }
    }

    #[test]
    fn names_of_the_tests_are_known_and_others_are_said() {
        let mut names = Vec::new();
        for path in ["tests", "xtask/src", "src/backend", "CONTRIBUTING.md", ".ci"] {
            collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &mut names);
        }
        names.retain(|name| name != "NANOTERN_TOTAL_STEP" && name != "NANOTERN_REQUIRE_");
        assert!(names.len() > 20);
        let command = crate::cli::Cli::command();
        assert_eq!(warnings(&command, names.into_iter()), [""; 0]);
        let said = warnings(&command, ["NANOTERN_BACKENDS", "NANO", "PATH"].into_iter().map(OsString::from));
        let [said] = &said[..] else { panic!("{said:?}") };
        assert!(said.contains("NANOTERN_BACKENDS is unknown") && said.ends_with("name is NANOTERN_BACKEND"), "{said}");
        for name in ["nanotern_seed", "NANOTERN_seed", "Nanotern_Seed ", "NANOTERN_SEEDS"] {
            let said = warnings(&command, [OsString::from(name)].into_iter()).concat();
            assert!(said.contains(name) && said.ends_with("name is NANOTERN_SEED"), "{said}");
        }
    }
}
