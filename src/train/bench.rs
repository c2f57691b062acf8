//! How fast a training step is, and where its time goes.

use super::{Batch, Config, StepShape, TrainStep, Trainer};
use crate::Result;
use crate::backend::Backend;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::time::Instant;

/// Measured training steps.
#[derive(Clone, Debug)]
pub struct StepBench {
    pub tokens_per_step: usize,
    /// Seconds of each step.
    pub seconds: Vec<f64>,
    /// Multiply-adds of the model's matrix products in a step, counted as two each.
    pub model_flops: u64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

impl StepBench {
    /// Median seconds of a step.
    pub fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    pub fn tokens_per_second(&self) -> f64 {
        self.tokens_per_step as f64 / self.median()
    }
}

/// Time spent in one op over a step.
#[derive(Clone, Debug)]
pub struct OpTime {
    pub op: &'static str,
    pub calls: usize,
    pub seconds: f64,
    pub flops: u64,
}

fn trainer(config: &Config, vocab: usize, backend: &Backend) -> Result<(Trainer, Vec<Batch>)> {
    let (batch, accum) = (config.train.batch_size, config.train.grad_accum);
    let shape = StepShape { batch, seq: config.model.seq_len, accum, recompute: config.train.recompute };
    let mut trainer = Trainer::new(TrainStep::build(&config.model, vocab, shape, &config.optim), backend)?;
    trainer.init(0);
    let mut rng = Rng::new(1);
    let mut ids = || (0..shape.rows()).map(|_| rng.below(vocab as u64) as u32).collect::<Vec<_>>();
    let batches = (0..accum).map(|_| Batch { inputs: ids(), targets: ids() }).collect();
    Ok((trainer, batches))
}

/// Times `steps` training steps on random tokens, after two that are not counted.
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
        tokens_per_step: trainer.step.shape.tokens(),
        seconds,
        model_flops: trainer.step.model_flops,
        buffer_bytes: trainer.step.plan.bytes(),
    })
}

/// Times every op of a step by itself, waiting for each; the slowest first.
pub fn profile_step(config: &Config, vocab: usize, backend: &Backend, steps: usize) -> Result<Vec<OpTime>> {
    let (mut trainer, batches) = trainer(config, vocab, backend)?;
    trainer.submit(0, 1.0, batches.iter().cloned())?;
    let plan = trainer.step.plan.clone();
    let mut times: BTreeMap<&'static str, OpTime> = BTreeMap::new();
    for section in ["begin", "micro", "update"] {
        let repeats = steps * if section == "micro" { batches.len() } else { 1 };
        for i in plan.graph.nodes_of(section) {
            let node = &plan.graph.nodes[i];
            let start = Instant::now();
            for _ in 0..repeats {
                trainer.program.run(i..i + 1)?;
            }
            pollster::block_on(trainer.program.ready())?;
            let entry =
                times.entry(node.op.name).or_insert(OpTime { op: node.op.name, calls: 0, seconds: 0.0, flops: 0 });
            entry.calls += 1;
            entry.seconds += start.elapsed().as_secs_f64() / steps as f64;
            entry.flops += (node.op.flops)(&node.args) * (repeats / steps) as u64;
        }
    }
    let mut times: Vec<OpTime> = times.into_values().collect();
    times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(times)
}
