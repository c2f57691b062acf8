//! Preparing data takes little memory, whatever the text. `benches/corpora.py` measures the same with 1 GB of each kind.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use common::cli::Project;
use std::io::Write;
use std::process::Stdio;
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
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0).max(peak);
        match child.try_wait().unwrap() {
            Some(status) => break assert!(status.success(), "{words}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    peak
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
}
