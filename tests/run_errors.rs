//! User errors: each ends with an exit code and a message that names the thing and the limit.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Project, fresh, resume};
use std::path::PathBuf;

/// Runs `words`, which must fail with `code` and a message that contains each of `parts`.
fn fails(p: &Project, words: &str, code: i32, parts: &[&str]) {
    let ended = p.nanotern(words);
    assert_eq!(ended.code, Some(code), "{words}:\n{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "{words}: {part:?} is not in\n{}", ended.stderr);
    }
}

#[test]
fn configurations_that_cannot_be() {
    let p = Project::new();
    p.write("unknown.toml", "[model]\ndim = 64\nwidth = 3\n");
    p.write("broken.toml", "[model\n");
    p.write("type.toml", "[model]\ndim = \"wide\"\n");
    for (words, parts) in [
        ("--config nano-1t", &["nano-1t", "no such preset", "tiny, d20"][..]),
        ("--config missing.toml", &["missing.toml", "no such file"]),
        ("--config unknown.toml", &["unknown.toml", "unknown field `width`", "`dim`"]),
        ("--config type.toml", &["type.toml", "\"wide\"", "model.dim"]),
        ("--set optim.lr=1", &["unknown field `lr`", "muon_lr", "optim"]),
        ("--set data.size=1", &["unknown field `size`", "vocab_size"]),
        ("--set network.dim=1", &["unknown field `network`", "`model`"]),
        ("--set dim=64", &["dim", "section.key"]),
        ("--set model.dim", &["--set model.dim", "section.key=value"]),
        ("--set model.dim=wide", &["\"wide\"", "model.dim"]),
        ("--set model.sub_norm=1", &["model.sub_norm", "boolean"]),
        ("--set model.quantize=int4", &["int4", "`ternary`", "`none`"]),
        ("--set optim.state=fp8", &["fp8", "`f32`", "`bf16`", "`int8`"]),
        ("--set optim.aux=sgd", &["sgd", "`adamw`", "`lion`"]),
        ("--set train.total_steps=2.5", &["2.5", "train.total_steps"]),
        ("--total-steps=-3", &["-3", "train.total_steps"]),
        ("--total-steps 0", &["total_steps = 0", "between 1 and"]),
        ("--total-steps many", &["--total-steps", "many"]),
        ("--batch-size 0", &["batch_size = 0", "65536"]),
        ("--batch-size 60000 --seq-len 60000", &["batch_size = 60000", "seq_len = 60000", "2147483648", "grad_accum"]),
        ("--grad-accum 0", &["grad_accum = 0"]),
        ("--log-interval 0", &["log_interval = 0"]),
        ("--set train.eval_windows=0", &["eval_windows = 0"]),
        ("--lr nan", &["muon_lr = NaN", "at least 0"]),
        ("--lr=-1", &["muon_lr = -1"]),
        ("--set optim.muon_momentum=1.0", &["muon_momentum = 1"]),
        ("--set optim.muon_steps=0", &["muon_steps = 0"]),
        ("--set optim.decay_fraction=2.0", &["decay_fraction = 2", "between 0 and 1"]),
        ("--set model.dim=100", &["dim / heads = 100 / 2", "multiple of 4"]),
        ("--set model.dim=68 --set model.heads=3", &["dim / heads = 68 / 3", "multiple of 4"]),
        ("--set model.heads=3 --set model.dim=96", &["heads = 3", "kv_heads = 2"]),
        ("--set model.group_size=48", &["group_size = 48", "multiple of 32"]),
        ("--set model.mhc_streams=3", &["mhc_streams = 3", "1, 2 or 4"]),
        ("--set model.layers=0", &["layers = 0", "256"]),
        ("--set model.ternary_head=true", &["ternary_head", "tie_embeddings"]),
        ("--set model.rope_theta=0.5", &["rope_theta = 0.5"]),
        ("--seq-len 100000", &["seq_len = 100000", "65536"]),
    ] {
        let base = if words.starts_with("--config") { "train" } else { "train --config config.toml" };
        fails(&p, &format!("{base} --set model.kv_heads=2 {words} --backend cpu"), 2, parts);
    }
    fails(&p, "train --config broken.toml", 1, &["broken.toml", "line 1"]);
    assert!(!p.path("runs").exists(), "a refused run leaves nothing behind");
    let giant =
        "train --config config.toml --backend cpu --set model.dim=16384 --set model.heads=128 --set model.ffn=65536";
    fails(&p, &format!("{giant} --set model.layers=256"), 1, &["MiB of memory", "are free", "smaller batch or model"]);
    assert!(p.path("runs").read_dir().unwrap().next().is_none(), "a refused run leaves nothing behind");
}

#[test]
fn data_that_cannot_be() {
    let p = Project::new();
    p.write("short.txt", "only a few words");
    p.write("empty.txt", "");
    p.write("latin.txt", b"caf\xe9".repeat(100));
    p.write("odd.bin", [1; 401]);
    p.write("sidecar.bin", [0; 400]);
    p.write("sidecar.json", r#"{"vocab_size": 1000000000, "tokenizer_hash": "x", "tokens": 100, "bytes": 100}"#);
    p.write("large.bin", 1000u32.to_le_bytes().repeat(100));
    p.write("val.txt", "fewer than 33 tokens");
    for (words, code, parts) in [
        ("--vocab-size 100", 2, &["vocab_size is 100", "`bytes` has 262 tokens"][..]),
        ("--tokenizer bpe --vocab-size 3", 2, &["3", "256"]),
        ("--tokenizer missing.json", 1, &["missing.json"]),
        ("--tokenizer text.txt", 1, &["text.txt"]),
        ("--data-path missing.txt", 1, &["missing.txt", "No such file"]),
        ("--data-path short.txt", 2, &["15 tokens", "sequence length 32 needs 33"]),
        ("--data-path empty.txt", 1, &["empty.txt", "empty"]),
        ("--data-path latin.txt", 1, &["latin.txt", "UTF-8", "offset 3"]),
        ("--data-path odd.bin", 1, &["odd.bin", "multiple of 4"]),
        ("--data-path large.bin --vocab-size 300", 1, &["large.bin", "1000", "300"]),
        ("--data-path large.bin --vocab-size 1000000000", 2, &["1000000000", "between 1 and 16777216"]),
        (
            "--data-path large.bin --vocab-size 16777216 --set model.dim=256 --set model.ffn=256",
            2,
            &["16777216", "at most 8388608", "dim = 256"],
        ),
        ("--dataset tokens --data-path sidecar.bin", 1, &["sidecar.json", "vocab_size = 1000000000", "16777216"]),
        ("--tokenizer bpe --vocab-size 16777217", 2, &["16777217", "between 1 and 16777216"]),
        ("--val-data-path val.txt", 2, &["21 validation tokens", "33"]),
        ("--val-data-path missing.txt", 1, &["missing.txt"]),
        ("--dataset tokens --set data.path=x.bin", 1, &["x.bin"]),
        ("--dataset web", 2, &["web", "`synthetic`"]),
        ("--set data.val_fraction=1.0", 2, &["val_fraction is 1", "below 1"]),
        (
            "--data-path large.bin --vocab-size 2000 --set data.separate_documents=true",
            2,
            &["data.separate_documents", "large.bin"],
        ),
    ] {
        fails(&p, &fresh("run", words), code, parts);
    }
    fails(&p, "inspect sidecar.bin", 1, &["sidecar.json", "vocab_size = 1000000000", "16777216"]);
    p.write("none.toml", "[data]\ndataset = \"text\"\n");
    fails(&p, "train --config none.toml --backend cpu", 2, &["`text`", "--data-path"]);
    assert!(!p.path("run").exists() && !p.path("runs").exists(), "a refused run leaves nothing behind");
}

#[test]
fn devices_that_cannot_be() {
    let p = Project::new();
    for (words, code, parts) in [
        ("--backend nonsense", 2, &["--backend nonsense", "auto, cpu, wgpu or cuda"][..]),
        #[cfg(not(feature = "cuda"))]
        ("--backend cuda", 2, &["built without CUDA", "cargo build --release --features cuda"]),
        ("--backend cpu --adapter llvmpipe", 2, &["--adapter", "NANOTERN_ADAPTER", "the backend is cpu"]),
        ("--backend wgpu --threads 2", 2, &["--threads", "the backend is wgpu"]),
        ("--backend wgpu --cpu-level scalar", 2, &["--cpu-level", "the backend is wgpu"]),
        #[cfg(feature = "cuda")]
        ("--backend cuda --threads 2", 2, &["--threads", "the backend is cuda"]),
        ("--backend auto --adapter 0 --threads 2", 2, &["--threads", "the backend is wgpu"]),
        ("--cpu-level avx1024", 2, &["avx1024", "scalar, avx2, avx512"]),
        ("--threads 0", 2, &["0 threads", "between 1 and 1024"]),
        ("--threads 5000", 2, &["5000 threads", "1024"]),
        ("--threads two", 2, &["--threads", "two"]),
    ] {
        let backend = if words.contains("--backend") { "" } else { "--backend cpu" };
        fails(&p, &format!("train --config config.toml {backend} {words}"), code, parts);
    }
    // If an adapter is named, `auto` does not fall back to the CPU.
    for backend in ["wgpu", "auto"] {
        let words = format!("train --config config.toml --backend {backend} --adapter no-such-card");
        if nanotern::backend::adapters().is_empty() {
            fails(&p, &words, 1, &["--backend cpu"]);
        } else {
            fails(&p, &words, 2, &["--adapter no-such-card"]);
        }
    }
    assert!(!p.path("runs").exists(), "a refused run leaves nothing behind");
}

#[test]
fn runs_that_cannot_be_taken_up() {
    let p = Project::new();
    fails(&p, "train --resume", 2, &["no run in runs", "nanotern train"]);
    std::fs::create_dir(p.path("empty")).unwrap();
    fails(&p, &resume("empty", ""), 2, &["empty is not a run", "config.toml"]);
    fails(&p, &resume("nowhere", ""), 2, &["nowhere is not a run"]);
    assert!(!p.path("nowhere").exists() && p.path("empty").read_dir().unwrap().next().is_none());

    p.train("run", "--total-steps 6");
    let saved = || ["config.toml", "metrics.jsonl", "final/model.safetensors"].map(|f| p.read(&format!("run/{f}")));
    let before = saved();
    p.write("other.txt", "Another text, in which nothing is as it was. ".repeat(40));
    for (words, parts) in [
        (fresh("run", ""), &["run already contains a run", "--resume"][..]),
        (resume("run", "--total-steps 4"), &["total_steps = 4", "6 steps"]),
        (
            resume("run", "--set model.dim=128 --seed 7"),
            &["model.dim = 64, not 128", "train.seed = 0, not 7", "--fork"],
        ),
        (resume("run", "--checkpoint-dir other"), &["--resume run", "--checkpoint-dir other", "one of them"]),
        (resume("run", "--fork new --checkpoint-dir run"), &["--fork", "--checkpoint-dir run"]),
        (resume("run", "--fork run"), &["run already contains a run"]),
        (resume("run", "--fork new --set model.dim=128"), &["embed.weight", "[262, 64]", "[262, 128]"]),
        (resume("run", "--fork new --set model.layers=2"), &["layers.1.", "lacks"]),
        (resume("run", "--fork new --tokenizer bpe --vocab-size 270"), &["embed.weight", "[262, 64]", "[270, 64]"]),
        (
            resume("run", "--data-path other.txt"),
            &["data that differs from other.txt", "data.path was", "other.txt\")"],
        ),
        (resume("run", "--tokenizer bpe --vocab-size 262"), &["another tokenizer", "data.tokenizer was \"bytes\""]),
    ] {
        fails(&p, &words, 2, parts);
        assert!(saved() == before && !p.path("new").exists(), "{words}: a refused run was changed");
    }
    std::fs::remove_dir_all(p.path("run/final")).unwrap();
    std::fs::create_dir(p.path("run/step_4")).unwrap();
    fails(&p, &resume("run", ""), 1, &["no valid checkpoint", "step_4"]);
}

#[test]
fn places_that_cannot_be_written() {
    let p = Project::new();
    fails(&p, &fresh("text.txt", ""), 1, &["text.txt"]);
    fails(&p, &fresh("text.txt/run", ""), 1, &["text.txt/run"]);
    if cfg!(target_os = "linux") {
        fails(&p, &fresh("/proc/run", ""), 1, &["/proc/run"]);
    }
}

/// Every file and folder under `dir`, with the contents.
fn tree(dir: &std::path::Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for path in dir.read_dir().unwrap().map(|e| e.unwrap().path()) {
        found.extend(if path.is_dir() { tree(&path) } else { vec![(path.clone(), std::fs::read(&path).ok())] });
        found.push((path, None));
    }
    found.sort();
    found
}

#[test]
fn a_folder_of_somebody_else_stays_as_it_is() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    for (folder, file, text) in [
        ("project", "config.toml", "title = \"mine\"\n".to_string()),
        ("own_config", "config.toml", String::from_utf8(p.read("config.toml")).unwrap()),
        ("notes", "notes.txt", "mine".to_string()),
        ("other_trainer", "metrics.jsonl", "{}\n".to_string()),
        ("hidden", ".git", "x".to_string()),
        ("other_lock", ".lock", "host 17".to_string()),
    ] {
        std::fs::create_dir(p.path(folder)).unwrap();
        p.write(&format!("{folder}/{file}"), text);
        let before = tree(&p.path(folder));
        let refused = [folder, "not a run of nanotern", "new or an empty folder"];
        fails(&p, &fresh(folder, ""), 2, &refused);
        fails(&p, &resume("run", &format!("--fork {folder}")), 2, &refused);
        let words = resume(folder, "--dataset text --data-path text.txt --tokenizer bytes");
        assert_eq!(p.nanotern(&words).code, Some(2), "{folder}");
        assert_eq!(tree(&p.path(folder)), before, "{folder}");
    }
    std::fs::create_dir(p.path("empty")).unwrap();
    p.train("empty", "--total-steps 2");
    p.assert_same("run", "empty");
}

#[test]
fn prepared_files_of_somebody_else_stay_as_they_are() {
    let p = Project::new();
    let words = "data prepare --input text.txt --tokenizer bytes --output";
    for file in ["train.bin", "val.bin", "train.json", "val.json", "tokenizer.json"] {
        std::fs::create_dir_all(p.path("other")).unwrap();
        p.write("other/mine.txt", "stays");
        p.write(&format!("other/{file}"), "{}");
        let before = tree(&p.path("other"));
        fails(&p, &format!("{words} other"), 2, &[&format!("other/{file}"), "nanotern did not write"]);
        assert_eq!(tree(&p.path("other")), before, "{file}");
        std::fs::remove_dir_all(p.path("other")).unwrap();
    }
    p.ok(&format!("{words} ours"));
    let before = tree(&p.path("ours"));
    p.ok(&format!("{words} ours"));
    assert_eq!(tree(&p.path("ours")), before);
}

#[test]
fn three_runs_at_once_have_three_folders() {
    let p = Project::new();
    let words = "train --config config.toml --backend cpu --threads 1 --total-steps 2";
    let runs: Vec<_> = (0..3).map(|_| p.start(words)).collect();
    for run in runs {
        let ended = run.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert_eq!(p.path("runs").read_dir().unwrap().count(), 3);
}

#[test]
#[cfg(unix)]
fn an_output_that_is_no_file_is_refused() {
    use std::os::unix::fs::symlink;
    let p = Project::new();
    p.train("run", "--total-steps 2 --set model.mhc_streams=2");
    let made = std::process::Command::new("mkfifo").arg(p.path("pipe")).status().unwrap();
    assert!(made.success());
    let socket = std::os::unix::net::UnixListener::bind(p.path("socket")).unwrap();
    symlink("/dev/null", p.path("null")).unwrap();
    for (output, what) in [("pipe", "pipe"), ("socket", "socket"), ("null", "device"), ("run", "folder")] {
        let part = format!("{output}: is a {what}");
        fails(&p, &format!("export --checkpoint run --output {output}"), 1, &[&part]);
        fails(&p, &format!("export --checkpoint run --output x.gguf --mhc {output}"), 1, &[&part]);
        fails(&p, &format!("tokenizer train --input text.txt --vocab-size 270 --output {output}"), 1, &[&part]);
        assert!(p.path(output).symlink_metadata().is_ok() && !p.path("x.gguf").exists());
    }
    drop(socket);
    symlink("sub/model.gguf", p.path("link.gguf")).unwrap();
    p.ok("export --checkpoint run --output link.gguf");
    assert!(p.path("link.gguf").is_symlink() && p.path("sub/model.gguf").is_file());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_standard_output_is_an_error() {
    let p = Project::new();
    p.train("run", "--total-steps 2");
    p.ok("export --checkpoint run --output model.gguf");
    for words in [
        "--help",
        "--version",
        "train --help",
        "completions zsh",
        "devices",
        "devices --json",
        "doctor --json",
        "inspect model.gguf",
        "inspect run/final --json",
        "export --checkpoint run --output again.gguf",
        "eval perplexity --backend cpu --model run --data-path text.txt",
        "bench decode --backend cpu --model run --tokens 2 --repeats 1",
        "bench train-step --config config.toml --backend cpu --steps 1 --profile",
        "generate --backend cpu --model run --max-tokens 2 --prompt x",
        "data prepare --input text.txt --output d --tokenizer bytes",
        "tokenizer train --input text.txt --vocab-size 270 --output t.json",
    ] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let out = p.command(words).stdout(full).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        let last = err.lines().last().unwrap_or_default();
        assert!(out.status.code() == Some(1) && !err.contains("panicked"), "{words}: {:?}\n{err}", out.status);
        assert!(last.starts_with("error: standard output: No space left"), "{words}:\n{err}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = p.command(words).stdout(writer).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(141) && !err.contains("error"), "{words}: {:?}\n{err}", out.status);
    }
}

#[test]
fn variables_that_are_empty_or_unknown() {
    let p = Project::new();
    let run = |name: &str, value: &str| {
        let out = p.command("train --config config.toml --total-steps 1").env(name, value).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let help = p.ok("train --help");
    let names = help.split("[env: ").skip(1).map(|rest| rest.split('=').next().unwrap());
    let mut count = 0;
    for name in names {
        let (code, err) = run(name, "");
        assert!(code == Some(0) && !err.contains("warning"), "{name}: {err}");
        count += 1;
    }
    assert!(count > 15, "{count} variables");
    let (code, err) = run("NANOTERN_TOTAL_STEP", "3");
    let warning = "NANOTERN_TOTAL_STEP is unknown and has no effect; the nearest name is NANOTERN_TOTAL_STEPS\n";
    assert!(code == Some(0) && err.contains(warning), "{err}");
    let (code, err) = run("NANOTERN_REQUIRE_GPU", "1");
    assert!(code == Some(0) && !err.contains("unknown"), "{err}");
}

#[test]
#[cfg(target_os = "linux")]
fn paths_need_not_be_utf8() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let p = Project::new();
    let at = |name: &str| {
        let mut path = p.path("").into_os_string();
        path.push(OsStr::from_bytes(b"p\xff %q"));
        PathBuf::from(path).join(name)
    };
    std::fs::create_dir(at("")).unwrap();
    for name in ["text.txt", "config.toml"] {
        std::fs::copy(p.path(name), at(name)).unwrap();
    }
    let run = |words: &str, paths: &[(&str, PathBuf)]| {
        let mut command = p.command(words);
        for (flag, path) in paths {
            command.args([OsString::from(flag), path.clone().into_os_string()]);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    };
    run("tokenizer train --vocab-size 270", &[("--input", at("text.txt")), ("--output", at("t.json"))]);
    let files = [("--input", at("text.txt")), ("--output", at("data")), ("--tokenizer", at("t.json"))];
    run("data prepare", &files);
    let train = "train --backend cpu --threads 1 --total-steps 2";
    let (data, tokenizer) = (("--data-path", at("text.txt")), ("--tokenizer", at("t.json")));
    run(train, &[("--config", at("config.toml")), data, tokenizer.clone(), ("--checkpoint-dir", at("run"))]);
    let text = String::from_utf8(std::fs::read(at("run/config.toml")).unwrap()).unwrap();
    assert!(text.contains("p%FF%20%25q/text.txt\"") && text.contains("p%FF%20%25q/t.json\""), "{text}");
    run("train --backend cpu --total-steps 3", &[("--resume", at("run"))]);
    run("train --backend cpu", &[("--resume", at("run")), ("--fork", at("fork"))]);
    let tokens = [("--data-path", at("data/train.bin")), ("--val-data-path", at("data/val.bin")), tokenizer.clone()];
    run(&format!("{train} --config config.toml --checkpoint-dir tokens"), &tokens);
    let files = [("--checkpoint", at("run")), ("--output", at("m.gguf"))];
    run("export", &files);
    run("generate --backend cpu --prompt x --max-tokens 2", &[("--model", at("m.gguf")), tokenizer]);
    run("eval perplexity --backend cpu", &[("--model", at("run")), ("--data-path", at("text.txt"))]);
    let mut inspect = p.command("inspect");
    assert!(inspect.arg(at("m.gguf")).output().unwrap().status.success());
    let missing = p.command("inspect").arg(at("missing")).output().unwrap();
    assert!(missing.status.code() == Some(1) && String::from_utf8_lossy(&missing.stderr).contains("%q/missing"));
}
