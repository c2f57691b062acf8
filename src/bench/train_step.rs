//! Measures the speed of a training step, and profiles it.

use super::{Profile, Timing, by_op};
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
    let shape = StepShape::of(config);
    let mut trainer = Trainer::new(TrainStep::build(&config.model, vocab, shape, &config.optim), backend)?;
    trainer.init(0);
    let mut rng = Rng::new(1);
    let mut ids = || (0..shape.rows()).map(|_| rng.below(vocab as u64) as u32).collect::<Vec<_>>();
    let batches = (0..shape.accum).map(|_| Batch::new(ids(), ids(), shape.seq)).collect();
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

/// Times every node of `steps` training steps.
///
/// # Errors
/// When the configuration is invalid or the device fails.
pub fn profile_step(config: &Config, vocab: usize, backend: &Backend, steps: usize) -> Result<Profile> {
    let (mut trainer, batches) = trainer(config, vocab, backend)?;
    trainer.submit(0, 1.0, batches.iter().cloned())?;
    let StepSections { begin, micro, update, .. } = trainer.step.sections;
    let sections = [(begin, 1), (micro, batches.len()), (update, 1)];
    let mut seconds = vec![0.0; trainer.step.plan.graph.nodes.len()];
    for _ in 0..steps {
        for (section, runs) in sections {
            for _ in 0..runs {
                let times = trainer.program.time(section.nodes())?;
                seconds[section.nodes()].iter_mut().zip(times).for_each(|(sum, time)| *sum += time / steps as f64);
            }
        }
    }
    let timed = sections.into_iter().flat_map(|(section, runs)| section.nodes().map(move |i| (i, runs as u64)));
    let ops = by_op(&trainer.step.plan.graph, timed.map(|(i, runs)| (i, seconds[i], runs)));
    Ok(Profile { clock: trainer.program.clock(), ops })
}
