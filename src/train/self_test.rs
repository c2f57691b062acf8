//! One training step of a small model, op by op, against the scalar reference: what `nanotern doctor` runs.

use super::{Batch, OptimConfig, StepShape, TrainStep, Trainer, sorted_rows};
use crate::Result;
use crate::backend::{Backend, Cpu, Difference, Level, lockstep, parity_limit};
use crate::graph::TensorId;
use crate::model::ModelConfig;

/// Runs every op of a training step of a small model with two residual streams on `backend` and on the scalar reference,
/// with the same inputs; returns the outputs that differ.
pub async fn self_test(backend: &Backend) -> Result<Vec<Difference>> {
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
        // Freshly initialised streams are equal, and many of their gradients zero: rounding would be compared.
        for mhc in mixing(&trainer.step) {
            let values: Vec<f32> = (0..config.mhc_params()).map(|i| (i as f32).sin()).collect();
            trainer.program.write(mhc, &values);
        }
        let order = trainer.step.order;
        trainer.program.write(order, &sorted_rows(&inputs));
        trainer.feed(&Batch { inputs: inputs.clone(), targets: targets.clone() });
        trainer.program.write(trainer.step.control.step, &[0.5f32, 0.1, 0.05, 0.0]);
    }
    let graph = &reference.step.plan.graph;
    let nodes = graph.nodes_of("begin").start..graph.nodes_of("update").end;
    let zero = graph.nodes.iter().rposition(|n| n.op.name == "mhc_pre_backward_coef");
    let mut differences = lockstep(&mut reference.program, &mut other.program, nodes, parity_limit).await?;
    // The first sub-layer's streams are equal whatever the parameters, and its RMSNorm takes out any factor: the gradient
    // of its read weights, the last one of the backward pass, is zero.
    differences.retain(|d| Some(d.node) != zero);
    Ok(differences)
}

/// Residual mixing parameters.
fn mixing(step: &TrainStep) -> Vec<TensorId> {
    step.model.params.iter().filter(|p| p.name.ends_with(".mhc")).map(|p| p.id).collect()
}
