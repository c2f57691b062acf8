//! Models of other programs, against what others compute of them. `tests/foreign` has small ones; NANOTERN_FOREIGN may name a
//! folder with more.
#![cfg(feature = "native")]

#[path = "../common/mod.rs"]
mod common;

mod folders;
mod further;
mod gguf;
mod give;
mod keys;
#[path = "../formats/raw.rs"]
mod raw;
mod text;

use common::{Golden, backends};
use nanotern::backend::Backend;
use nanotern::formats::ModelFile;
use nanotern::infer::{Engine, EngineOptions};
use std::path::{Path, PathBuf};

/// The margin of a greedy token above which it must be the same.
const MARGIN: f64 = 0.05;

/// The folders with models, ours first.
fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
    [own].into_iter().chain(std::env::var_os("NANOTERN_FOREIGN").map(PathBuf::from)).collect()
}

fn engine(file: &ModelFile, backend: &Backend) -> Engine {
    Engine::new(file, backend, EngineOptions { slots: 1, context: 0 }).unwrap()
}

/// Logits (tokens, vocab) of every token, fed in chunks of so many: the last of each chunk.
fn logits(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    pollster::block_on(engine.prompt_logits(tokens, chunk)).unwrap()
}

/// Normalised mean square error, and the largest difference.
fn distance(have: &[Vec<f32>], want: &[f64]) -> (f64, f64) {
    let have: Vec<f64> = have.iter().flatten().map(|v| f64::from(*v)).collect();
    assert_eq!(have.len(), want.len(), "number of logits");
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = squares(&mut have.iter().zip(want).map(|(a, b)| a - b)) / squares(&mut want.iter().copied());
    let most = have.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    (error, most)
}

fn top(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

/// The model computes what the file of expectations says, on every backend. Its tensors start with `prefix`.
fn agrees(name: &str, file: &ModelFile, want: &Golden, prefix: &str) {
    let get = |key: &str| want.tensors.get(key).or_else(|| want.tensors.get(&format!("{prefix}{key}"))).unwrap();
    let ids = |key: &str| get(key).iter().map(|id| *id as u32).collect::<Vec<u32>>();
    let (vocab, short, tokens) = (file.vocab, ids("short.tokens"), ids("tokens"));
    let length = want.shapes["tokens"][1];
    let (greedy, margins) = (ids("greedy"), get("greedy_margin"));
    let count = greedy.len() / 2;
    for (backend_name, backend) in &backends() {
        let mut engine = engine(file, backend);
        for chunk in [1, short.len()] {
            let have = logits(&mut engine, &short, chunk);
            let want: Vec<f64> =
                get("short.logits").chunks(vocab).skip(chunk - 1).step_by(chunk).flatten().copied().collect();
            let (error, most) = distance(&have, &want);
            println!("{name} {backend_name} short by {chunk}: NMSE {error:.1e}, max {most:.1e}");
            assert!(error <= 1e-10 && most <= 1e-4, "{name} {backend_name} short by {chunk}: {error:.1e}, {most:.1e}");
        }
        for (i, tokens) in tokens.chunks(length).enumerate() {
            let want = &get("logits")[i * length * vocab..][..length * vocab];
            let have = logits(&mut engine, tokens, 1);
            let (error, _) = distance(&have, want);
            let agree = have
                .iter()
                .zip(want.chunks(vocab))
                .filter(|(have, want)| top(have) == top(&want.iter().map(|v| *v as f32).collect::<Vec<_>>()));
            let agree = agree.count();
            println!("{name} {backend_name} sequence {i}: NMSE {error:.1e}, {agree} of {length} first");
            assert!(error <= 2e-4 && agree + 1 >= length, "{name} {backend_name} sequence {i}: {error:.1e}, {agree}");
            let last = logits(&mut engine, tokens, length);
            let (error, _) = distance(&last, &want[(length - 1) * vocab..]);
            assert!(error <= 2e-4, "{name} {backend_name} sequence {i} at once: {error:.1e}");
            let mut text = tokens.to_vec();
            for step in 0..count {
                let last = logits(&mut engine, &text, text.len());
                let (have, want) = (top(&last[0]), greedy[i * count + step] as usize);
                if have != want {
                    assert!(margins[i * count + step] < MARGIN, "{name} {backend_name} sequence {i}: token {step}");
                    break;
                }
                text.push(have as u32);
            }
            println!("{name} {backend_name} sequence {i}: {} of {count} greedy tokens", text.len() - length);
        }
    }
}
