//! A whole training step on every backend, op by op, and twenty steps in a row.
#![cfg(feature = "native")]

mod common;

use common::{backends, scalar};
use nanotern::backend::{Backend, lockstep};
use nanotern::model::{Embeddings, ModelConfig, Quantize};
use nanotern::rng::Rng;
use nanotern::train::{Batch, OptimConfig, StepShape, TrainStep, Trainer, self_test};

#[test]
fn no_op_of_a_step_differs() {
    for (name, backend) in backends() {
        let differences = pollster::block_on(self_test(&backend)).unwrap();
        assert!(differences.is_empty(), "{name}: {differences:#?}");
    }
}

/// Sums are taken in another order on a GPU: with a limit of 0, lockstep must see that.
#[test]
fn a_difference_is_seen() {
    if !common::has_adapter() {
        return;
    }
    let shape = StepShape { batch: 2, seq: 16, ..StepShape::default() };
    let step = || TrainStep::build(&ModelConfig::self_test(), 40, shape, &OptimConfig::default());
    let wgpu = Backend::Wgpu(nanotern::backend::Wgpu::open(None).unwrap());
    let [mut reference, mut other] = [scalar(), wgpu].map(|backend| Trainer::new(step(), &backend).unwrap());
    reference.init(3);
    reference.feed(&Batch::new((0..32).collect(), (1..33).collect(), shape.seq));
    let nodes = reference.step.sections.begin.nodes().start..reference.step.sections.micro.nodes().end;
    let found = lockstep(&mut reference.program, &mut other.program, nodes, |_| 0.0);
    let found = pollster::block_on(found).unwrap();
    assert!(found.iter().any(|d| d.op == "rms_norm") && found.iter().all(|d| d.error > 0.0), "{found:?}");
}

/// Losses of twenty steps on predictable sequences.
fn losses(backend: &Backend, quantize: Quantize, embeddings: Embeddings) -> Vec<f32> {
    let config = ModelConfig {
        dim: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 128,
        seq_len: 32,
        group_size: 64,
        quantize,
        embeddings,
        ..ModelConfig::default()
    };
    let shape = StepShape { batch: 2, seq: 32, accum: 2, ..StepShape::default() };
    let optim = OptimConfig::default();
    let mut trainer = Trainer::new(TrainStep::build(&config, 60, shape, &optim), backend).unwrap();
    trainer.init(0);
    let mut rng = Rng::new(5);
    for step in 0..20 {
        let micro = (0..shape.accum).map(|_| {
            let start = rng.below(60) as u32;
            let ids = |from: u32| (0..shape.rows() as u32).map(|i| (start + from + i * 7) % 60).collect();
            Batch::new(ids(0), ids(7), shape.seq)
        });
        trainer.submit(step, optim.schedule(step, 100), micro.collect::<Vec<_>>()).unwrap();
    }
    trainer.stats(0..20).unwrap().iter().map(|s| s.loss).collect()
}

/// Rounding makes a ternary network discontinuous: an activation within float error of a tie may get another code on another
/// backend, and training continues from there. Without quantisation only float error remains.
#[test]
fn twenty_losses_agree() {
    for (quantize, embeddings, limit) in
        [(Quantize::None, Embeddings::F32, 1e-4), (Quantize::Ternary, Embeddings::F16, 2e-2)]
    {
        let reference = losses(&scalar(), quantize, embeddings);
        assert!(reference[19] < reference[0] - 0.5, "it learns: {reference:?}");
        for (name, backend) in backends() {
            let off = losses(&backend, quantize, embeddings);
            let off: Vec<f32> = off.iter().zip(&reference).map(|(have, want)| (have - want).abs()).collect();
            println!("{quantize:?} on {name}: {off:?}");
            assert!(off.iter().all(|off| *off <= limit), "{quantize:?} on {name}: losses differ by {off:?}");
        }
    }
}
