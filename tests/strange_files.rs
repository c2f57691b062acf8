//! Files and folders from strangers: what is not a regular file is refused and never waited for, nothing is written through a
//! link, and numbers that cannot be are errors.
#![cfg(all(feature = "cli", unix))]

mod common;

use common::cli::{Ended, Project, fresh, resume};
use nanotern::checkpoint::{self, Meta, RolledBack};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What may be in the place of a file or a folder.
const KINDS: [&str; 6] =
    ["link to file", "link to folder", "link to nothing", "pipe", "folder or file", "link to device"];

/// Puts something of a kind at `at`, where there was a file or a folder.
fn put(p: &Project, kind: &str, at: &Path, folder: bool) {
    let link = |to: PathBuf| symlink(to, at).unwrap();
    match kind {
        "link to file" => link(p.path("victim.txt")),
        "link to folder" => link(p.path("victim")),
        "link to nothing" => link(p.path("nothing")),
        "pipe" => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        "folder or file" if folder => fs::write(at, "").unwrap(),
        "folder or file" => fs::create_dir(at).unwrap(),
        _ => link("/dev/zero".into()),
    }
}

/// Asserts that a command was refused with a word about `name`.
fn refused(what: &str, ended: &Ended, name: &str) {
    assert!(matches!(ended.code, Some(1 | 2)), "{what}: {:?}\n{}", ended.code, ended.stderr);
    assert!(ended.stderr.contains(name), "{what}: {name} is not in\n{}", ended.stderr);
}

/// Every name in a run and in a checkpoint, as every kind of thing.
#[test]
fn no_name_leads_out_of_a_run_or_is_waited_for() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    fs::create_dir(p.path("victim")).unwrap();
    p.write("victim/inner.txt", "inner");
    p.write("victim.txt", "mine");
    let events = fs::read_dir(p.path("run")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let events = events.into_iter().find(|name| name.starts_with("events.")).unwrap();
    let run = [".lock", "metrics.jsonl", "config.toml", "loss.svg", &events];
    let checkpoint = ["manifest.json", "meta.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"];
    let folders = ["final", "step_1", ".tmp-step_4", ".old-final", ".del-step_1"];
    let names = run.into_iter().chain(folders).map(|name| (name, format!("run/{name}")));
    for (name, path) in names.chain(checkpoint.map(|name| (name, format!("run/final/{name}")))) {
        let at = p.path(&path);
        let was_there = at.exists();
        for kind in KINDS {
            let what = format!("{kind} at {path}");
            if was_there {
                fs::rename(&at, p.path("aside")).unwrap();
            }
            put(&p, kind, &at, folders.contains(&name));
            refused(&what, &p.nanotern(&resume("run", "--total-steps 4")), name);
            if checkpoint.contains(&name) {
                refused(&what, &p.nanotern("inspect run/final"), name);
                refused(&what, &p.nanotern("export --checkpoint run/final --output out.gguf"), name);
            }
            // A folder of a run may be left out in favour of another; what is not read does not matter.
            let exported = p.nanotern("export --checkpoint run --output out.gguf");
            if name == "final" || checkpoint.contains(&name) {
                refused(&what, &exported, name);
            }
            assert!(p.read("victim.txt") == b"mine" && p.read("victim/inner.txt") == b"inner", "{what}");
            assert!(fs::read_dir(p.path("victim")).unwrap().count() == 1 && !p.path("nothing").exists(), "{what}");
            if at.is_dir() && !at.is_symlink() {
                fs::remove_dir(&at).unwrap()
            } else {
                fs::remove_file(&at).unwrap()
            }
            if was_there {
                fs::rename(p.path("aside"), &at).unwrap();
            }
        }
    }
    p.ok(&resume("run", "--total-steps 4"));
}

/// What is written into a run that has other names (hard links) does not appear under them.
#[test]
fn other_names_of_a_file_of_a_run_stay_as_they_are() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    fs::hard_link(p.path("run/metrics.jsonl"), p.path("log")).unwrap();
    let before = p.read("log");
    p.ok(&resume("run", "--total-steps 4"));
    assert!(p.read("log") == before && p.metrics("run").len() > before.split(|b| *b == b'\n').count());
    p.write("mine", "mine");
    fs::remove_file(p.path("run/.lock")).unwrap();
    fs::hard_link(p.path("mine"), p.path("run/.lock")).unwrap();
    refused("a hard link", &p.nanotern(&resume("run", "--total-steps 6")), "run/.lock: has another name");
    assert_eq!(p.read("mine"), b"mine");
}

/// Files that a user names may be links, but must lead to a regular file.
#[test]
fn inputs_are_regular_files() {
    let p = Project::new();
    p.train("run", "--total-steps 2 --set model.mhc_streams=2");
    p.ok("export --checkpoint run --output model.gguf --mhc mixing.mhc");
    p.ok("data prepare --input text.txt --tokenizer bytes --output data");
    fs::create_dir(p.path("folder")).unwrap();
    symlink("/dev/zero", p.path("device")).unwrap();
    let pipe = p.path("pipe");
    put(&p, "pipe", &pipe, false);
    let _socket = std::os::unix::net::UnixListener::bind(p.path("socket")).unwrap();
    let generate = "generate --backend cpu --prompt a --max-tokens 1";
    for input in ["pipe", "device", "socket", "folder", "nothing"] {
        for words in [
            format!("inspect {input}"),
            format!("{generate} --model {input}"),
            format!("{generate} --model model.gguf --mhc {input}"),
            format!("{generate} --model model.gguf --tokenizer {input}"),
            fresh("new", &format!("--tokenizer {input}")),
            fresh("new", &format!("--dataset tokens --data-path {input} --vocab-size 300")),
            fresh("new", &format!("--dataset tokens --data-path data/train.bin --val-data-path {input}")),
            format!("train --backend cpu --config {input}"),
            format!("export --checkpoint {input} --output x.gguf"),
        ] {
            refused(&words, &p.nanotern(&words), input);
        }
        if input != "folder" {
            let words = fresh("new", &format!("--data-path {input}"));
            refused(&words, &p.nanotern(&words), input);
        }
        for beside in ["data/train.json", "data/tokenizer.json"] {
            fs::rename(p.path(beside), p.path("aside")).unwrap();
            symlink(p.path(input), p.path(beside)).unwrap();
            let words = fresh("new", "--dataset tokens --data-path data/train.bin --tokenizer bpe");
            refused(&words, &p.nanotern(&words), beside);
            fs::rename(p.path("aside"), p.path(beside)).unwrap();
        }
    }
    for (link, to) in [("a.gguf", "model.gguf"), ("a.mhc", "mixing.mhc"), ("a.json", "data/tokenizer.json")] {
        symlink(to, p.path(link)).unwrap();
    }
    p.ok(&format!("{generate} --model a.gguf --mhc a.mhc --tokenizer a.json"));
}

/// Files that are too large to be what they should are refused by their size, before they are read.
#[test]
fn what_is_read_whole_has_a_limit() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    p.ok("export --checkpoint run --output model.gguf");
    p.ok("data prepare --input text.txt --tokenizer bytes --output data");
    let huge = |name: &str| File::create(p.path(name)).unwrap().set_len(1 << 40).unwrap();
    let generate = "generate --backend cpu --prompt a --max-tokens 1 --model model.gguf";
    for (name, words, limit) in [
        ("t.json", format!("{generate} --tokenizer t.json"), 64 << 20),
        ("m.mhc", format!("{generate} --mhc m.mhc"), 81_936),
        ("c.toml", "train --config c.toml".to_string(), 1 << 20),
        ("data/train.json", fresh("new", "--dataset tokens --data-path data/train.bin"), 1 << 16),
    ] {
        huge(name);
        refused(&words, &p.nanotern(&words), &format!("{name}: has 1099511627776 bytes: at most {limit} are read"));
    }
    // A log ends no run.
    huge("run/metrics.jsonl");
    let ended = p.nanotern(&resume("run", "--total-steps 4"));
    let said = "run/metrics.jsonl: has 1099511627776 bytes: at most 1073741824 are read; the run goes on";
    assert!(ended.code == Some(0) && ended.stderr.contains(said), "{:?}: {}", ended.code, ended.stderr);
    assert_eq!(p.path("run/metrics.jsonl").metadata().unwrap().len(), 1 << 40);
    huge("run/final/meta.json");
    refused("meta", &p.nanotern("inspect run/final"), "meta.json: too long");
    for name in ["huge.gguf", "huge.mhc", "huge.safetensors"] {
        huge(name);
        refused(name, &p.nanotern(&format!("inspect {name}")), name);
    }
}

/// Saves `run/final` again with another `meta.json` and right checksums.
fn change_meta(p: &Project, change: impl FnOnce(&mut Meta)) {
    let mut saved = checkpoint::load(&p.path("good")).unwrap();
    change(&mut saved.meta);
    let tokenizer = saved.tokenizer_json.as_deref();
    checkpoint::save(&p.path("run"), "final", &saved.meta, &saved.model, &saved.optimizer, tokenizer).unwrap();
}

#[test]
fn numbers_of_a_checkpoint_that_cannot_be() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    assert!(Command::new("cp").arg("-r").args([p.path("run/final"), p.path("good")]).status().unwrap().success());
    type Change = fn(&mut Meta);
    fn back(from: u64, to: u64) -> Option<RolledBack> {
        Some(RolledBack { from, to })
    }
    let counts: [(&str, Change); 9] = [
        ("step = 18446744073709551615: at most 9007199254740992", |m| m.step = u64::MAX),
        ("tokens = 18446744073709551615: at most 9007199254740992", |m| m.tokens = u64::MAX),
        ("data_cursor = 18446744073709551615: at most 9007199254740992", |m| m.data_cursor = u64::MAX),
        ("skipped_steps = 9007199254740993: at most 9007199254740992", |m| m.skipped_steps = (1 << 53) + 1),
        ("skipped_in_a_row = 18446744073709551615: at most", |m| m.state.skipped_in_a_row = u64::MAX),
        ("diverged_in_a_row = 18446744073709551615: at most", |m| m.state.diverged_in_a_row = u64::MAX),
        ("logged = 18446744073709551615: at most", |m| m.state.logged = u64::MAX),
        ("rolled_back.from = 18446744073709551615: at most", |m| m.state.rolled_back = back(u64::MAX, 0)),
        ("rolled_back.to = 18446744073709551615: at most", |m| m.state.rolled_back = back(0, u64::MAX)),
    ];
    for (part, change) in counts {
        change_meta(&p, change);
        for words in [resume("run", "--total-steps 4"), "inspect run/final".into(), "export --checkpoint run".into()] {
            refused(&words, &p.nanotern(&words), &format!("meta.json: {part}"));
        }
    }
    let configs: [(&str, Change); 3] = [
        ("decay_fraction = 5", |m| m.config["optim"]["decay_fraction"] = 5.0.into()),
        ("batch_size = 18446744073709551615", |m| m.config["train"]["batch_size"] = u64::MAX.into()),
        ("vocab_size = 1000000000", |m| m.config["data"]["vocab_size"] = 1_000_000_000.into()),
    ];
    for (part, change) in configs {
        change_meta(&p, change);
        refused(part, &p.nanotern(&resume("run", "--total-steps 4")), part);
        let inspected = p.ok("inspect run/final");
        assert!(inspected.contains("resumes     no: ") && inspected.contains(part), "{inspected}");
    }
    change_meta(&p, |m| m.data_cursor = Meta::MAX_COUNT);
    assert!(p.ok("inspect run/final").contains("resumes     yes"));
    p.ok(&resume("run", "--total-steps 4"));
}

/// Starts a run that ends late by itself, and waits for its first step.
fn long(p: &Project, words: &str) -> common::cli::Running {
    let mut run = p.start(&fresh("run", &format!("--total-steps 20000 {words}")));
    run.wait_for("step");
    run.wait_for("loss");
    run
}

#[test]
fn a_token_file_that_changes_under_a_trainer_ends_the_run() {
    let p = Project::new();
    p.ok("data prepare --input text.txt --tokenizer bytes --output data");
    let ids = p.read("data/train.bin");
    let change = |change: &dyn Fn(&Path)| {
        let run = long(&p, "--dataset tokens --data-path data/train.bin");
        change(&p.path("data/train.bin"));
        let ended = run.end();
        refused("a changed token file", &ended, "data/train.bin: was changed while its tokens were in use");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        fs::remove_dir_all(p.path("run")).unwrap();
        p.write("data/train.bin", &ids);
    };
    let resize = |path: &Path, len: usize| File::options().write(true).open(path).unwrap().set_len(len as u64).unwrap();
    change(&|path| resize(path, ids.len() / 2));
    change(&|path| resize(path, 0));
    change(&|path| resize(path, ids.len() + 4));
    change(&|path| fs::write(path, ids.iter().rev().copied().collect::<Vec<_>>()).unwrap());
}

#[test]
fn a_run_whose_folder_is_removed_ends_with_an_error() {
    let p = Project::new();
    let removals: [&dyn Fn(); 3] = [
        &|| fs::rename(p.path("run"), p.path("moved")).unwrap(),
        &|| while fs::remove_dir_all(p.path("run")).is_err() {},
        &|| {
            fs::rename(p.path("run"), p.path("moved")).unwrap();
            fs::create_dir(p.path("run")).unwrap();
        },
    ];
    for (i, remove) in removals.into_iter().enumerate() {
        let run = long(&p, "");
        remove();
        let ended = run.end();
        refused("a removed run", &ended, "run: the directory of the run was removed or replaced");
        assert!(!p.path("run").exists() || i == 2 && fs::read_dir(p.path("run")).unwrap().count() == 0);
        let _ = (fs::remove_dir_all(p.path("run")), fs::remove_dir_all(p.path("moved")));
    }
}
