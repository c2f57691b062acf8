//! A model that generates text without training.

use half::f16;
use nanotern::formats::{ModelFile, Tensor, TensorData, Ternary, TextConfig};
use nanotern::model::{Form, ModelConfig, Weight};
use nanotern::rng;
use nanotern::tokenizer::{ASSISTANT, Tokenizer};

/// A model whose layers add nothing, so that each token decides the next one. Its answer is "- word\n" until the context is
/// full, at every temperature. More layers make it slower.
pub fn endless_list(layers: usize) -> ModelFile {
    let tokenizer = Tokenizer::bytes();
    let (dim, vocab) = (64, tokenizer.vocab_size());
    let config = ModelConfig {
        dim,
        layers,
        heads: 2,
        kv_heads: 1,
        ffn: 64,
        seq_len: 1 << 14,
        group_size: 32,
        mhc_streams: 1,
        tie_embeddings: false,
        ..ModelConfig::default()
    };
    let sign = |token: usize, i: usize| if rng::mix((token * dim + i) as u64) & 1 == 0 { 1.0 } else { -1.0 };
    let mut head = vec![0.0; vocab * dim];
    let mut follows = |next: u8, token: usize| {
        (0..dim).for_each(|i| head[usize::from(next) * dim + i] += sign(token, i));
    };
    let line = b"- word\n";
    (0..line.len()).for_each(|i| follows(line[(i + 1) % line.len()], line[i].into()));
    follows(line[0], tokenizer.token_id(ASSISTANT).unwrap() as usize);
    let tensor = |weight: &Weight| {
        let size = weight.elements();
        let data = match (weight.form, weight.name.as_str()) {
            (Form::Ternary { group, scales }, _) => {
                TensorData::Ternary(Ternary::quantize(&vec![0.0; size], weight.matrix(), group, scales))
            }
            (Form::F32, _) => TensorData::F32(vec![1.0; size]),
            (Form::F16, "head.weight") => TensorData::F16(head.iter().map(|v| f16::from_f32(*v)).collect()),
            (Form::Int8, _) => unreachable!("the model has f16 tables"),
            (Form::F16, _) => TensorData::F16((0..size).map(|i| f16::from_f32(sign(i / dim, i % dim))).collect()),
        };
        Tensor::new(weight, data)
    };
    let tensors = config.weights(vocab).iter().map(tensor).collect();
    ModelFile { config, vocab, tensors, text: TextConfig::new(&tokenizer) }
}
