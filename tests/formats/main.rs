//! File formats: round trips bit for bit, sizes, and files that are wrong in every way that was ever exploited.
#![cfg(feature = "native")]

#[cfg(feature = "cli")]
mod cli;
mod malformed;
mod others;
mod raw;
mod round_trip;
mod stream;

use nanotern::checkpoint::Array;
use nanotern::checkpoint::{self, Meta};
use nanotern::formats::{CHAT_TEMPLATE, ModelFile, TextConfig};
use nanotern::model::{Model, ModelConfig, Role, Weight};
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use nanotern::train::Config;
use std::path::{Path, PathBuf};

/// A few kilobytes, with residual streams.
fn tiniest() -> ModelConfig {
    ModelConfig { dim: 32, ffn: 64, group_size: 32, mhc_streams: 2, heads: 2, kv_heads: 1, ..small() }
}

/// The smallest model that every encoding can hold.
fn small() -> ModelConfig {
    ModelConfig {
        dim: 256,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        ffn: 256,
        seq_len: 16,
        group_size: 256,
        ..Default::default()
    }
}

/// What training would keep of a model: random values, far from their initial ones.
fn latent(config: &ModelConfig, vocab: usize, seed: u64) -> Vec<Array> {
    let mut g = nanotern::graph::Graph::new();
    let model = Model::new(&mut g, config, vocab);
    let mut rng = Rng::new(seed);
    let array = |weight: &Weight| {
        let scale = if weight.role == Role::Norm { 1.0 } else { 0.3 };
        let data = (0..weight.elements()).map(|_| scale * rng.normal()).collect();
        Array::f32(&weight.name, weight.shape.clone(), data)
    };
    model.weights.iter().map(array).collect()
}

/// Saves a checkpoint and returns its directory.
fn save(run: &Path, config: &ModelConfig, model: &[Array], tokenizer: Option<&Tokenizer>) -> PathBuf {
    let all = Config { model: config.clone(), ..Config::default() };
    let meta = Meta { step: 1, config: serde_json::to_value(all).unwrap(), ..Meta::default() };
    let json = tokenizer.map(Tokenizer::to_json);
    std::fs::create_dir_all(run).unwrap();
    checkpoint::save(run, "step_1", &meta, model, &[], json.as_deref()).unwrap()
}

/// A model of random values, by way of a checkpoint.
fn model(config: &ModelConfig, vocab: usize, tokenizer: Option<&Tokenizer>) -> ModelFile {
    let dir = tempfile::tempdir().unwrap();
    ModelFile::open(&save(dir.path(), config, &latent(config, vocab, 7), tokenizer)).unwrap()
}

/// A tokenizer of exactly `vocab` tokens: no language is needed, only words that occur again.
fn trained_tokenizer(vocab: usize) -> Tokenizer {
    let mut rng = Rng::new(2);
    let letter = |rng: &mut Rng| char::from(b'a' + (rng.below(26) * rng.below(26) / 26) as u8);
    let word = |rng: &mut Rng| (0..4 + rng.below(5)).map(|_| letter(rng)).collect::<String>();
    let words: Vec<String> = (0..vocab).map(|_| word(&mut rng)).collect();
    let tokenizer = Tokenizer::train_bpe(&[words.join(" "), words.join(" ")].join(" "), vocab).unwrap();
    assert_eq!(tokenizer.vocab_size(), vocab);
    tokenizer
}

#[test]
fn chat_template_is_written_for_tokenizers_with_roles() {
    let text = TextConfig::new(&Tokenizer::bytes());
    assert_eq!(text.chat_template.as_deref(), Some(CHAT_TEMPLATE));
    assert_eq!((text.bos, text.eos, text.stop), (Some(256), Some(257), vec![257, 261]));
}

fn scalar() -> nanotern::backend::Backend {
    use nanotern::backend::{Backend, Cpu, Level};
    Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap())
}
