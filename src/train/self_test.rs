//! One training step of a small model, op by op, against the scalar reference: what `nanotern doctor` runs.

use super::{Batch, OptimConfig, StepShape, TrainStep, Trainer, sorted_rows};
use crate::Result;
use crate::backend::{Backend, Cpu, Difference, Level, lockstep};
use crate::model::ModelConfig;

/// Largest error of an op's output, as [`lockstep`] measures it. Division on a GPU may be off by 2.5 ulp, so that a few
/// activations in a thousand get the next code. The streams start as equal copies and a norm follows them, to whose scale
/// the loss is blind: the first gradient of the read weights is 0 but for rounding, so only whether it is finite counts.
fn limit(op: &str) -> f64 {
    match op {
        "quantize_rows" => 1e-2,
        // The first sub-layer's streams are equal, and RMSNorm's gradient is orthogonal to its input: these sums cancel to
        // rounding errors, which no two orders of adding share.
        "mhc_pre_backward_coef" => f64::INFINITY,
        _ => 1e-7,
    }
}

/// Runs every op of a training step of a small model with two residual streams on `backend` and on the scalar reference,
/// with the same inputs; returns the outputs that differ.
pub fn self_test(backend: &Backend) -> Result<Vec<Difference>> {
    let config = ModelConfig {
        dim: 64,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        ffn: 96,
        seq_len: 16,
        group_size: 32,
        mhc_streams: 2,
        ..ModelConfig::default()
    };
    let shape = StepShape { batch: 2, seq: 16, accum: 1, recompute: false };
    let build = || TrainStep::build(&config, 50, shape, &OptimConfig::default());
    let scalar = Backend::Cpu(Cpu::new(Level::Scalar, Some(1))?);
    let mut reference = Trainer::new(build(), &scalar)?;
    let mut other = Trainer::new(build(), backend)?;
    let inputs: Vec<u32> = (0..shape.rows() as u32).map(|i| i * i % 47).collect();
    let targets: Vec<u32> = inputs.iter().map(|id| (id + 3) % 50).collect();
    for trainer in [&mut reference, &mut other] {
        trainer.init(1);
        let order = trainer.step.order;
        trainer.program.write(order, &sorted_rows(&inputs));
        trainer.feed(&Batch { inputs: inputs.clone(), targets: targets.clone() });
        trainer.program.write(trainer.step.control.step, &[0.5f32, 0.1, 0.05, 0.0]);
    }
    let graph = &reference.step.plan.graph;
    let nodes = graph.nodes_of("begin").start..graph.nodes_of("update").end;
    lockstep(&mut reference.program, &mut other.program, nodes, limit)
}
