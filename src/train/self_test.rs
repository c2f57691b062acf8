//! One training step of a small model, op by op, against the scalar reference. `nanotern doctor` runs it.

use super::{Batch, OptimConfig, StepShape, TrainStep, Trainer, sorted_rows};
use crate::Result;
use crate::backend::{Backend, Cpu, Difference, Level, lockstep, parity_limit};
use crate::model::{ModelConfig, Role};

/// Runs every op of a training step of small models, with two residual streams, experts and further heads, on `backend` and on the
/// scalar reference, with the same inputs; returns the outputs that differ.
pub async fn self_test(backend: &Backend) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for config in ModelConfig::self_tests() {
        differences.extend(step(&config, backend).await?);
    }
    Ok(differences)
}

async fn step(config: &ModelConfig, backend: &Backend) -> Result<Vec<Difference>> {
    let (entropy_weight, token_filter) = (0.1, 0.3);
    let shape = StepShape { batch: 2, seq: config.seq_len, entropy_weight, token_filter, ..StepShape::default() };
    let build = || TrainStep::build(config, 50, shape, &OptimConfig::default());
    let scalar = Backend::Cpu(Cpu::new(Level::Scalar, Some(1))?);
    let mut reference = Trainer::new(build(), &scalar)?;
    let mut other = Trainer::new(build(), backend)?;
    let inputs: Vec<u32> = (0..shape.rows() as u32).map(|i| i * i % 47).collect();
    let targets: Vec<u32> = inputs.iter().map(|id| (id + 3) % 50).collect();
    for trainer in [&mut reference, &mut other] {
        trainer.init(1);
        // With initial mixing the streams are equal, and many of their gradients zero: the test would compare rounding.
        let mixing = trainer.step.model.params().filter(|(weight, _)| weight.role == Role::Mixing);
        for (weight, param) in mixing {
            let values: Vec<f32> = (0..weight.elements()).map(|i| (i as f32).sin()).collect();
            trainer.program.write(param, &values);
        }
        let order = trainer.step.order;
        trainer.program.write(order, &sorted_rows(&inputs));
        trainer.feed(&Batch::new(inputs.clone(), targets.clone(), shape.seq));
        trainer.program.write(trainer.step.control.step, &[0.5f32, 0.1, 0.05, 0.0, 1.0, 2.0]);
    }
    let graph = &reference.step.plan.graph;
    let sections = reference.step.sections;
    let nodes = sections.begin.nodes().start..sections.update.nodes().end;
    let zero = graph.nodes.iter().rposition(|n| n.op.name == "mhc_pre_backward_coef");
    let mut differences = lockstep(&mut reference.program, &mut other.program, nodes, parity_limit).await?;
    // The streams that the first sub-layer reads are equal for any parameters, and its RMSNorm removes any factor. So the
    // gradient of its read weights, the last one of the backward pass, is zero.
    differences.retain(|d| Some(d.node) != zero);
    Ok(differences)
}
