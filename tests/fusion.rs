//! Decode steps whose nodes are fused on a GPU, against the same steps node by node.
#![cfg(feature = "native")]

mod common;

use nanotern::backend::{Backend, Wgpu, dispatches, float_error};
use nanotern::bench::random_model;
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::model::{Embeddings, MixerKind, ModelConfig, PRESETS};

fn small() -> ModelConfig {
    let (dim, layers, heads, kv_heads, ffn) = (96, 2, 6, 2, 160);
    ModelConfig { dim, layers, heads, kv_heads, ffn, seq_len: 700, group_size: 32, ..ModelConfig::default() }
}

/// Engines on one device, which fuses nodes, and on the same that does not.
fn both(config: &ModelConfig) -> [Engine; 2] {
    let file = random_model(config.clone(), 300);
    [false, true].map(|unfused| {
        let wgpu = Wgpu::open(None).unwrap();
        let backend = Backend::Wgpu(if unfused { wgpu.unfused() } else { wgpu });
        Engine::new(&file, &backend, EngineOptions { slots: 4, context: 0 }).unwrap()
    })
}

/// Logits after each chunk of a prompt that fills three blocks of keys.
#[test]
fn fused_steps_give_what_single_nodes_give() {
    if !common::has_adapter() {
        return;
    }
    let plain = ModelConfig { sub_norm: false, ..small() };
    let streams = ModelConfig { mhc_streams: 2, ..small() };
    let mixers = vec![MixerKind::DeltaNet, MixerKind::Attention];
    let hybrid = ModelConfig { mixers, ..small() };
    for (config, chunks) in
        [(small(), [512, 1]), (small(), [512, 4]), (plain, [16, 3]), (streams, [16, 1]), (hybrid, [16, 1])]
    {
        let [mut fused, mut single] = both(&config);
        let graph = &fused.plan().graph;
        assert_eq!(fused.dispatches_per_token(), dispatches(graph, graph.sections[0].nodes()), "{config:?}");
        assert!(fused.dispatches_per_token() < single.dispatches_per_token(), "{config:?}");
        let prompt: Vec<u32> = (0..chunks[0] as u32 + 8).map(|i| i * 7 % 300).collect();
        // The first chunk fills the cache, and the others are steps of few rows.
        let [a, b] =
            [&mut fused, &mut single].map(|engine| pollster::block_on(engine.prompt_logits(&prompt, chunks[0])));
        assert!(float_error(&b.unwrap()[0], &a.unwrap()[0]) < 1e-7);
        let short = &prompt[..8];
        let [a, b] =
            [&mut fused, &mut single].map(|engine| pollster::block_on(engine.prompt_logits(short, chunks[1])).unwrap());
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let error = float_error(b, a);
            let bits = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            println!("chunk {i} of {}: error {error:.1e}, {bits} of {} bits differ", chunks[1], a.len());
            assert!(error < 1e-7, "chunk {i} of {}: {error:e}, {config:?}", chunks[1]);
        }
    }
}

/// Sequences side by side, longer than one block of keys, until the context is full.
#[test]
fn fused_steps_draw_the_same_tokens() {
    if !common::has_adapter() {
        return;
    }
    let prompts: Vec<Vec<u32>> = [5, 300, 520].map(|n| (0..n).map(|i| i * 11 % 300).collect()).to_vec();
    let sampling = Sampling { temperature: 0.8, seed: 3, max_tokens: 12, ..Sampling::default() };
    let [a, b] = both(&small()).map(|mut engine| engine.generate_all(&prompts, &sampling).unwrap());
    assert_eq!(a, b);
}

#[test]
fn a_token_takes_few_dispatches() {
    for (name, f16, q8_0) in [("tiny", 29, 30), ("nano-125m", 69, 70)] {
        let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
        for (embeddings, most) in [(Embeddings::F16, f16), (Embeddings::Q8_0, q8_0)] {
            let config = ModelConfig { embeddings, ..preset.model.clone() };
            let options = EngineOptions { slots: 1, context: 64 };
            let engine = Engine::empty(&config, preset.vocab, &[], &common::fastest(), options).unwrap();
            let graph = &engine.plan().graph;
            let count = dispatches(graph, graph.sections[0].nodes());
            let nodes = graph.sections[0].nodes();
            let single: usize = nodes.clone().map(|i| dispatches(graph, i..i + 1)).sum();
            println!("{name}, {embeddings:?}: {} nodes, {single} dispatches one by one, {count} fused", nodes.len());
            assert!(count <= most, "{name}, {embeddings:?}: {count} dispatches a token");
        }
    }
}
