//! Measures the speed of a training step, and profiles it.

use super::{OpTime, Timing, by_op};
use crate::Result;
use crate::backend::Backend;
use crate::rng::Rng;
use crate::train::{Batch, Config, StepSections, StepShape, TrainStep, Trainer};
use std::time::Instant;

/// A measurement of training steps.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// The measured times.
    pub timing: Timing,
    /// Multiply-adds of the model's matrix products in a step, counted as two each.
    pub model_flops: u64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

fn trainer(config: &Config, vocab: usize, backend: &Backend) -> Result<(Trainer, Vec<Batch>)> {
    let (batch, accum) = (config.train.batch_size, config.train.grad_accum);
    let shape = StepShape { batch, seq: config.model.seq_len, accum, recompute: config.train.recompute };
    let mut trainer = Trainer::new(TrainStep::build(&config.model, vocab, shape, &config.optim), backend)?;
    trainer.init(0);
    let mut rng = Rng::new(1);
    let mut ids = || (0..shape.rows()).map(|_| rng.below(vocab as u64) as u32).collect::<Vec<_>>();
    let batches = (0..accum).map(|_| Batch::new(ids(), ids(), shape.seq)).collect();
    Ok((trainer, batches))
}

/// Times `steps` training steps on random tokens, after two warm-up steps.
///
/// # Errors
/// When the configuration is invalid or the device fails.
pub fn bench_step(config: &Config, vocab: usize, backend: &Backend, steps: usize) -> Result<StepBench> {
    let (mut trainer, batches) = trainer(config, vocab, backend)?;
    let mut seconds = Vec::new();
    for step in 0..steps as u64 + 2 {
        let start = Instant::now();
        trainer.submit(step, 1.0, batches.iter().cloned())?;
        trainer.stats(step..step + 1)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.drain(..2);
    Ok(StepBench {
        timing: Timing { tokens: trainer.step.shape.tokens(), seconds },
        model_flops: trainer.step.model_flops,
        buffer_bytes: trainer.step.plan.bytes(),
    })
}

/// Times every node of a training step `steps` times, waiting for each node. Returns the times by op, the slowest first.
///
/// # Errors
/// When the configuration is invalid or the device fails.
pub fn profile_step(config: &Config, vocab: usize, backend: &Backend, steps: usize) -> Result<Vec<OpTime>> {
    let (mut trainer, batches) = trainer(config, vocab, backend)?;
    trainer.submit(0, 1.0, batches.iter().cloned())?;
    let plan = trainer.step.plan.clone();
    let mut nodes = Vec::new();
    let StepSections { begin, micro, update, .. } = trainer.step.sections;
    for (section, runs) in [(begin, 1), (micro, batches.len()), (update, 1)] {
        for i in section.nodes() {
            let start = Instant::now();
            for _ in 0..steps * runs {
                trainer.program.run(i..i + 1)?;
            }
            pollster::block_on(trainer.program.ready())?;
            nodes.push((&plan.graph.nodes[i], start.elapsed().as_secs_f64() / steps as f64, runs as u64));
        }
    }
    Ok(by_op(nodes))
}
