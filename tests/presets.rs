//! Models with the vocabulary and the width of the presets on a GPU: their tables exceed what browsers and software devices
//! allow for a binding.
#![cfg(feature = "native")]

mod common;

use common::{fastest, has_adapter};
use cpu_kernels::ops::cross_entropy_gradient::CrossEntropyGradientArgs;
use cpu_kernels::ops::cross_entropy_partial::CrossEntropyPartialArgs;
use cpu_kernels::ops::embedding_backward::EmbeddingBackwardArgs;
use cpu_kernels::{ArgWords, Args};
use nanotern::backend::{Backend, Wgpu, lockstep, parity_limit};
use nanotern::bench::random_model;
use nanotern::graph::{Kind, Op};
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::model::{ModelConfig, Preset};
use nanotern::ops::{CROSS_ENTROPY_GRADIENT, CROSS_ENTROPY_PARTIAL, EMBEDDING_BACKWARD};
use nanotern::train::{Batch, OptimConfig, StepShape, TrainStep, Trainer, sorted_rows};

/// Takes a training step of one sequence and decodes four tokens, on the GPU and on the CPU. Every op up to the gradients, and
/// every op of a decode step, agrees as the parity limits say; so do the loss, the norm of the gradients and the tokens.
fn trains_and_decodes(config: &ModelConfig, vocab: usize, seq: usize, optim: &OptimConfig) {
    if !has_adapter() {
        return;
    }
    let config = ModelConfig { seq_len: seq, ..config.clone() };
    let backends = || [fastest(), Backend::Wgpu(Wgpu::open(None).unwrap())];
    let shape = StepShape { batch: 1, seq, ..StepShape::default() };
    let ids: Vec<u32> = (0..=seq).map(|i| (i * i * 3001 % vocab) as u32).collect();
    let batch = Batch::new(ids[..seq].to_vec(), ids[1..].to_vec(), seq);
    let [mut cpu, mut gpu] =
        backends().map(|backend| Trainer::new(TrainStep::build(&config, vocab, shape, optim), &backend).unwrap());
    let plan = cpu.step.plan.clone();
    assert!(plan.graph.tensors.iter().any(|t| matches!(t.kind, Kind::View { .. })), "the tables are small");
    for trainer in [&mut cpu, &mut gpu] {
        trainer.init(1);
        trainer.feed(&batch);
        let order = trainer.step.order;
        trainer.program.write(order, &sorted_rows(&batch.inputs));
    }
    let sections = cpu.step.sections;
    let nodes = sections.begin.nodes().start..sections.micro.nodes().end;
    let differences = pollster::block_on(lockstep(&mut cpu.program, &mut gpu.program, nodes, parity_limit)).unwrap();
    assert!(differences.is_empty(), "training: {differences:?}");
    let [on_cpu, on_gpu] = [&mut cpu, &mut gpu].map(|trainer| {
        trainer.submit(0, 1.0, [batch.clone()]).unwrap();
        let stats = trainer.stats(0..1).unwrap()[0];
        let changed = trainer.evaluate([batch.clone()]).unwrap();
        assert!(!stats.skipped && changed < f64::from(stats.loss) - 0.1, "{stats:?}, then {changed}");
        [stats.loss, stats.grad_norm, changed as f32]
    });
    println!("loss, norm, next loss: {on_gpu:?} on the GPU, {on_cpu:?} on the CPU");
    assert!(on_cpu.iter().zip(on_gpu).all(|(a, b)| (a - b).abs() < 2e-3 * a), "{on_gpu:?} is not {on_cpu:?}");
    drop((cpu, gpu));

    let file = random_model(config, vocab);
    let [mut cpu, mut gpu] = backends().map(|backend| {
        let options = EngineOptions { slots: 1, context: 0 };
        Engine::new(&file, &backend, options).unwrap()
    });
    let prompt = &ids[..4];
    let differences = cpu.compare(&mut gpu, prompt).unwrap();
    assert!(differences.is_empty(), "decoding: {differences:?}");
    let greedy = Sampling { temperature: 0.0, max_tokens: 4, ..Sampling::default() };
    let [on_cpu, on_gpu] = [&mut cpu, &mut gpu].map(|engine| engine.generate_all(&[prompt.to_vec()], &greedy).unwrap());
    assert!(on_gpu[0].0.len() == 4 && on_gpu == on_cpu, "{on_gpu:?}, not {on_cpu:?}");
}

/// One layer, and one iteration of Muon.
#[test]
fn a_layer_of_a_preset_trains_and_decodes_within_the_limits_of_every_device() {
    let Preset { vocab, model, .. } = Preset::find("nano-125m").unwrap();
    let optim = OptimConfig { muon_steps: 1, ..OptimConfig::default() };
    trains_and_decodes(&ModelConfig { layers: 1, ..model.clone() }, *vocab, 16, &optim);
}

#[test]
#[ignore = "takes minutes on a software device"]
fn a_preset_trains_and_decodes_within_the_limits_of_every_device() {
    let Preset { vocab, model, .. } = Preset::find("nano-125m").unwrap();
    trains_and_decodes(model, *vocab, 32, &OptimConfig::default());
}

/// A large GPU has more than a hundred processors, and each is full with two workgroups or more.
#[test]
fn few_rows_of_a_large_vocabulary_fill_a_gpu() {
    let workgroups = |op: &Op, args: ArgWords| op.passes.iter().map(|p| (p.grid)(&args).iter().product::<u32>()).min();
    let (rows, cols) = (64, 50_257);
    let args = CrossEntropyPartialArgs { rows, cols, first: 0, row: 0, block: 0, blocks: 13 };
    assert!(workgroups(&CROSS_ENTROPY_PARTIAL, args.to_words()) >= Some(264));
    let args = CrossEntropyGradientArgs { rows, cols, first: 0, row: 0, grad_scale: 1.0, entropy: 0.0 };
    assert!(workgroups(&CROSS_ENTROPY_GRADIENT, args.to_words()) >= Some(264));
    let args = EmbeddingBackwardArgs { rows: 8192, dim: 768, first: 0 };
    assert!(workgroups(&EMBEDDING_BACKWARD, args.to_words()) >= Some(264));
}
