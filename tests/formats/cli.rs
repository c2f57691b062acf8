//! `nanotern export` and `nanotern inspect`.

use super::{latent, save, small, tiniest};
use nanotern::data::{TokenMeta, write_tokens};
use nanotern::formats::ModelFile;
use nanotern::model::ModelConfig;
use nanotern::tokenizer::Tokenizer;
use std::path::Path;
use std::process::{Command, Output};

fn nanotern(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let args = args.iter().map(|a| a.as_ref());
    Command::new(env!("CARGO_BIN_EXE_nanotern")).args(args).output().unwrap()
}

fn inspect(path: &Path) -> serde_json::Value {
    let [text, json] = [vec![], vec!["--json"]].map(|flags| {
        let flags: Vec<&dyn AsRef<std::ffi::OsStr>> = flags.iter().map(|f| f as _).collect();
        let args = [&[&"inspect" as &dyn AsRef<std::ffi::OsStr>, &path], &flags[..]].concat();
        let out = nanotern(&args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    });
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    serde_json::from_str(&json).unwrap()
}

#[test]
fn export_writes_what_inspect_reads() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (run, gguf, mhc) = (at("run"), at("out/m.gguf"), at("m.mhc"));
    let config = ModelConfig { layers: 2, ..tiniest() };
    let checkpoint = save(&run, &config, &latent(&config, 262, 1), Some(&Tokenizer::bytes()));
    // A run is as good as its newest checkpoint, and a file that is there is replaced.
    for from in [&run, &checkpoint] {
        let out = nanotern(&[&"export", &"--checkpoint", from, &"--output", &gguf, &"--mhc", &mhc]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let bytes = std::fs::metadata(&gguf).unwrap().len();
        assert!(text.contains(&format!("({bytes} bytes, q1_58)")) && text.contains("(160 bytes)"), "{text}");
    }
    assert_eq!(std::fs::read_dir(at("out")).unwrap().count(), 1, "nothing temporary is left");
    assert_eq!(ModelFile::open(&gguf).unwrap(), ModelFile::open(&checkpoint).unwrap());

    let report = inspect(&gguf);
    assert_eq!((&report["kind"], &report["error"]), (&"gguf".into(), &serde_json::Value::Null));
    assert_eq!(report["config"], serde_json::to_value(&config).unwrap());
    assert_eq!(inspect(&mhc)["sublayers"].as_array().unwrap().len(), 4);
    assert_eq!(inspect(&checkpoint)["kind"], "checkpoint");
    assert_eq!(inspect(&checkpoint.join("model.safetensors"))["tensors"][0]["name"], "embed.weight");
    let bin = at("t.bin");
    let meta = TokenMeta { vocab_size: 9, tokenizer_hash: "x".into(), tokens: 3, bytes: 3 };
    write_tokens(&bin, &[1, 8, 2], &meta).unwrap();
    let report = inspect(&bin);
    assert_eq!((&report["tokens"], &report["largest"]), (&3.into(), &8.into()));
}

/// From a checkpoint to a file, to a folder, and back to a file.
#[test]
fn convert_reads_and_writes_what_holds_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = save(&dir.path().join("run"), &small(), &latent(&small(), 262, 1), Some(&Tokenizer::bytes()));
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanotern"));
        let out = command.current_dir(dir.path()).args(args).output().unwrap();
        let [out, err] = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (out, err)
    };
    let written = |args: &[&str], line: &str, note: &str| {
        let (out, err) = run(args);
        assert!(
            out.contains(line) && err.contains(note) && (err.is_empty() == note.is_empty()),
            "{args:?}: {out}{err}"
        );
    };
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let run_dir = checkpoint.to_str().unwrap();
    written(&["export", "--checkpoint", "run"], "wrote       model.gguf", "");
    written(&["convert", run_dir, "a.gguf"], "read by     nanotern only: q1_58", "");
    assert_eq!(read("a.gguf"), read("model.gguf"));
    written(
        &["convert", "a.gguf", "b.gguf", "--format", "tq2_0"],
        "nanotern, and llama.cpp as the architecture bitnet",
        "",
    );
    let dense = "note: hf-bf16 does not say that layers round their inputs to 8 bits";
    written(&["convert", "b.gguf", "c", "--format", "hf-bf16"], "read by     nanotern and transformers", dense);
    written(&["export", "--checkpoint", "run", "--format", "hf-bf16"], "wrote       model (", dense);
    for file in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        assert_eq!(read(&format!("model/{file}")), read(&format!("c/{file}")), "{file}");
    }
    written(
        &["convert", "c", "d.gguf", "--format", "tq1_0"],
        "nanotern only: the model has a combination of options",
        "no ternary matrix",
    );
    written(&["convert", "a.gguf", "c", "--format", "hf-bf16"], "", "no folder is replaced");
    written(&["convert", "a.gguf", "e", "--format", "hf-packed"], "", "hf-packed has one scale for a matrix");
    written(&["convert", "a.gguf", "e", "--format", "hf-bf16", "--tables", "q8_0"], "", "embed.weight is q8_0");
    written(&["convert", "nothing", "e"], "", "nothing");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.gguf", "b.gguf", "c", "d.gguf", "model", "model.gguf", "run"]);
}

#[test]
fn what_cannot_be_exported_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let config = small();
    let checkpoint = save(dir.path(), &config, &latent(&config, 262, 1), None);
    let gguf = dir.path().join("m.gguf");
    let fails = |flags: [&str; 2], code: i32, part: &str| {
        let out = nanotern(&[&"export", &"--checkpoint", &checkpoint, &"--output", &gguf, &flags[0], &flags[1]]);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(code) && text.contains(part), "{:?}: {text}", out.status);
    };
    fails(["--mhc", "m.mhc"], 2, "one residual stream");
    fails(["--format", "q9"], 2, "expected one of q1_58, tq2_0, tq1_0, i2_s, hf-packed, hf-bf16");
    assert!(!gguf.exists());
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "text").unwrap();
    let out = nanotern(&[&"inspect", &file]);
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("is not a checkpoint"));
}
