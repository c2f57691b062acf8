//! Preparing data takes little memory, whatever the text, and so does a model, whatever its file says. `benches/corpora.py`
//! measures the same with 1 GB of each kind.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use common::{cli::Project, peak_kib};
use nanotern::bench::random_model;
use nanotern::formats::Format;
use nanotern::model::ModelConfig;
use nanotern::tokenizer::Tokenizer;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of each corpus.
const SIZE: usize = 50 << 20;

/// Most memory in KiB. The tokens alone would take 204,800, at 4 bytes each.
const MOST: u64 = 120_000;

/// Writes `unit` to a file until it is long enough.
fn fill(p: &Project, unit: &str) {
    let part = unit.repeat((1 << 20) / unit.len());
    let mut file = std::fs::File::create(p.path("corpus.txt")).unwrap();
    (0..=SIZE / part.len()).for_each(|_| file.write_all(part.as_bytes()).unwrap());
}

/// Runs a command and returns the most memory it held, in KiB, as last seen before its end.
fn peak(p: &Project, words: &str) -> u64 {
    let mut child = p.command(words).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        peak = peak_kib(child.id()).max(peak);
        match child.try_wait().unwrap() {
            Some(status) => break assert!(status.success(), "{words}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    peak
}

/// A server or a generator holds what it uses, whatever a file says that it may use: here a 1 MB file of 256 layers, whose
/// keys and values of the longest sequence would take 4 GiB.
#[test]
fn a_deep_model_takes_little_memory() {
    let p = Project::new();
    let config = ModelConfig {
        dim: 32,
        layers: 256,
        heads: 1,
        kv_heads: 1,
        ffn: 32,
        seq_len: 65_536,
        group_size: 32,
        mhc_streams: 1,
        ..ModelConfig::default()
    };
    let mut file = random_model(config, 262);
    file.set_tokenizer(&Tokenizer::bytes()).unwrap();
    file.save_gguf(&p.path("deep.gguf"), Format::Q1_58).unwrap();
    assert!(std::fs::metadata(p.path("deep.gguf")).unwrap().len() < 2_000_000);
    let peak = peak(&p, "generate --backend cpu --threads 1 --model deep.gguf --prompt x --max-tokens 2");
    assert!(peak > 1000 && peak < MOST, "generate: {peak} KiB");
    let mut server = p.start("serve --backend cpu --threads 1 --port 0 --model deep.gguf --slots 16 --context 65536");
    server.wait_for("http://");
    let peak = peak_kib(server.child.id());
    server.kill();
    assert!(peak > 1000 && peak < MOST, "serve: {peak} KiB");
}

/// A command that finds too little memory says so, wherever it finds it: in the file, the weights, their packed copies, or the
/// keys and values of a growing sequence.
#[test]
fn too_little_memory_is_an_error() {
    let p = Project::new();
    let config = ModelConfig {
        dim: 256,
        layers: 8,
        heads: 8,
        kv_heads: 8,
        ffn: 32,
        seq_len: 4096,
        group_size: 32,
        mhc_streams: 1,
        ..ModelConfig::default()
    };
    random_model(config, 100_000).save_gguf(&p.path("wide.gguf"), Format::Q1_58).unwrap();
    let bench =
        p.command("bench decode --backend cpu --threads 2 --model wide.gguf --prompt 600 --tokens 1 --repeats 1");
    let mut said = String::new();
    // The file has 52 MB, the table in f32 twice as many, its packed copy as many again, the pages 17.
    for mib in (75..475).step_by(25) {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v $0 && exec \"$@\"", &(mib << 10).to_string()]);
        command.arg(bench.get_program()).args(bench.get_args()).current_dir(p.path("."));
        let out = command.output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(matches!(out.status.code(), Some(0 | 1)), "{mib} MiB: {}\n{err}", out.status);
        let named = err.contains("MiB are free") || err.contains("Cannot allocate memory");
        assert_eq!(named, out.status.code() == Some(1), "{mib} MiB: {err}");
        said.push_str(&err);
        if out.status.success() {
            break;
        }
    }
    assert!(said.contains("smaller model") && said.contains("smaller batch or model"), "{said}");
}

#[test]
fn six_kinds_of_text_are_prepared_within_a_bound() {
    let p = Project::new();
    for (kind, unit) in [
        ("lines", "The quick brown fox jumps over the lazy dog.\n"),
        ("lines of Windows", "The quick brown fox jumps over the lazy dog.\r\n"),
        ("one line", "The quick brown fox jumps over the lazy dog. "),
        ("Chinese", "我能吞下玻璃而不伤身体"),
        ("DNA", "GATTACACCTGAGT"),
        ("blanks", " "),
    ] {
        fill(&p, unit);
        let peak = peak(&p, "data prepare --input corpus.txt --output out --tokenizer bytes");
        assert!(peak > 1000 && peak < MOST, "{kind}: {peak} KiB");
        let tokens = std::fs::metadata(p.path("out/train.bin")).unwrap().len();
        assert!(tokens > (4 * 44) << 20, "{kind}: {tokens} bytes of tokens");
    }
    let line = "{\"text\": \"The quick brown fox jumps over the lazy dog.\"}\n";
    fill(&p, line);
    std::fs::rename(p.path("corpus.txt"), p.path("corpus.jsonl")).unwrap();
    let peak = peak(&p, "data prepare --input corpus.jsonl --output out --tokenizer bytes");
    assert!(peak < MOST, "JSON lines: {peak} KiB");
    p.write("corpus.jsonl", format!("{{\"text\": [{}0]}}\n{line}", "0,".repeat(10 << 20)));
    let peak = self::peak(&p, "data prepare --input corpus.jsonl --output out --tokenizer bytes");
    assert!(peak < MOST, "a list of numbers: {peak} KiB");
}
