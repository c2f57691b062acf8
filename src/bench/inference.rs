//! Measures the speed of prefill and decoding, and profiles a decode step.
//!
//! Decoding is timed as in serving: each step feeds the token that the last one sampled and samples the next, greedily. One
//! warm-up run precedes every measurement.

use super::{OpTime, Timing, by_op, median};
use crate::backend::Backend;
use crate::formats::{ModelFile, TensorData};
use crate::infer::{Engine, EngineOptions, Event, Sampling};
use crate::model::Role;
use crate::rng::Rng;
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// A measurement of prefill or decoding.
#[derive(Clone, Debug)]
pub struct InferenceBench {
    /// The measured times.
    pub timing: Timing,
    /// Weights of the ternary layers; each is multiplied once per token.
    pub ternary_weights: usize,
    /// Bytes of weights, in their size in a model file, that one run reads.
    pub weight_bytes: usize,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

impl InferenceBench {
    fn new(file: &ModelFile, engine: &Engine, timing: Timing, steps: usize) -> Self {
        let weights = file.tensors.iter().filter(|t| t.role == Role::Matrix).map(|t| match &t.data {
            TensorData::Ternary(t) => t.outs * t.dim,
            _ => 0,
        });
        // With a head of its own, the first table is the embedding, from which a step reads only a few rows.
        let tables = file.tensors.iter().filter(|t| t.role == Role::Table).count();
        let read = file.tensors.iter().skip(usize::from(tables > 1)).map(|t| t.data.bytes());
        InferenceBench {
            timing,
            ternary_weights: weights.sum(),
            weight_bytes: steps * read.sum::<usize>(),
            buffer_bytes: engine.device_bytes(),
        }
    }

    /// Multiplications and additions of the ternary layers per second.
    pub fn ternary_ops_per_second(&self) -> f64 {
        2.0 * self.ternary_weights as f64 * self.timing.tokens_per_second()
    }

    /// Bytes of weights read per second.
    pub fn weight_bytes_per_second(&self) -> f64 {
        self.weight_bytes as f64 / self.timing.median()
    }
}

/// Most repeats of a measurement.
const MAX_REPEATS: usize = 100_000;

fn check_repeats(repeats: usize) -> Result<()> {
    if (1..=MAX_REPEATS).contains(&repeats) {
        return Ok(());
    }
    Err(Error::usage(format!("{repeats} repeats: between 1 and {MAX_REPEATS} are possible")))
}

fn check_tokens(what: &str, tokens: usize, limit: usize) -> Result<()> {
    if (1..=limit).contains(&tokens) {
        return Ok(());
    }
    Err(Error::usage(format!("{tokens} {what}: the context allows between 1 and {limit}")))
}

/// An engine for one sequence of up to `context` tokens, and random tokens for it.
fn engine(file: &ModelFile, backend: &Backend, context: usize) -> Result<(Engine, Vec<u32>)> {
    let mut rng = Rng::new(1);
    let ids = (0..context).map(|_| rng.below(file.vocab as u64) as u32).collect();
    Ok((Engine::new(file, backend, EngineOptions { slots: 1, context })?, ids))
}

/// Times the prefill of `tokens` random tokens, up to the logits after the last.
///
/// # Errors
/// When `repeats` or `tokens` is out of range, or the device fails.
pub fn bench_prefill(file: &ModelFile, backend: &Backend, tokens: usize, repeats: usize) -> Result<InferenceBench> {
    check_repeats(repeats)?;
    check_tokens("prompt tokens", tokens, file.config.seq_len)?;
    let (mut engine, prompt) = engine(file, backend, tokens)?;
    let chunk = engine.most_rows();
    let mut seconds = Vec::new();
    for _ in 0..=repeats {
        let start = Instant::now();
        pollster::block_on(engine.prompt_logits(&prompt, chunk))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    Ok(InferenceBench::new(file, &engine, Timing { tokens, seconds }, tokens.div_ceil(chunk)))
}

/// Times the decoding of `tokens` tokens after a prompt of `prompt` tokens.
///
/// # Errors
/// When `repeats` or a number of tokens is out of range, or the device fails.
pub fn bench_decode(
    file: &ModelFile,
    backend: &Backend,
    (prompt, tokens): (usize, usize),
    repeats: usize,
) -> Result<InferenceBench> {
    check_repeats(repeats)?;
    let (mut engine, prompt) = decoder(file, backend, prompt, tokens)?;
    let mut seconds = Vec::new();
    for _ in 0..=repeats {
        start(&mut engine, &prompt, tokens)?;
        let begin = Instant::now();
        for _ in 0..tokens {
            draw(&mut engine)?;
        }
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    Ok(InferenceBench::new(file, &engine, Timing { tokens, seconds }, tokens))
}

/// Times every node of the decode step after `prompt` tokens, waiting for each; every time is the median of `repeats` steps.
/// Returns the times by op, the slowest first.
///
/// # Errors
/// When `repeats` or `prompt` is out of range, or the device fails.
pub fn profile_decode(file: &ModelFile, backend: &Backend, prompt: usize, repeats: usize) -> Result<Vec<OpTime>> {
    check_repeats(repeats)?;
    let (mut engine, prompt) = decoder(file, backend, prompt, 1)?;
    start(&mut engine, &prompt, 1)?;
    draw(&mut engine)?;
    let (program, nodes) = engine.single_row();
    let mut seconds = vec![Vec::new(); nodes.len()];
    // The inputs stay as the last step left them, so this samples the same token again.
    for _ in 0..repeats {
        for (i, times) in nodes.clone().zip(&mut seconds) {
            let begin = Instant::now();
            program.run(i..i + 1)?;
            pollster::block_on(program.ready())?;
            times.push(begin.elapsed().as_secs_f64());
        }
    }
    let nodes = program.plan().graph.nodes[nodes].iter().zip(seconds);
    Ok(by_op(nodes.map(|(node, times)| (node, median(times), 1))))
}

/// An engine for a prompt and the tokens sampled after it, and the prompt. It has no stop tokens, which a random model might
/// sample at any time.
fn decoder(file: &ModelFile, backend: &Backend, prompt: usize, tokens: usize) -> Result<(Engine, Vec<u32>)> {
    let limit = file.config.seq_len;
    check_tokens("prompt tokens", prompt, limit.saturating_sub(2))?;
    check_tokens(&format!("tokens after a prompt of {prompt}"), tokens, limit - 1 - prompt)?;
    // The prompt's own step samples one more token.
    let (mut engine, mut ids) = engine(file, backend, prompt + tokens + 1)?;
    engine.set_stop(Vec::new());
    ids.truncate(prompt);
    Ok((engine, ids))
}

/// Feeds the prompt and samples the first token.
fn start(engine: &mut Engine, prompt: &[u32], tokens: usize) -> Result<()> {
    let sampling = Sampling { temperature: 0.0, max_tokens: tokens + 1, ..Sampling::default() };
    engine.start(prompt, sampling, Arc::default())?;
    while draw(engine)? == 0 {}
    Ok(())
}

/// Runs one step; returns the number of sampled tokens.
fn draw(engine: &mut Engine) -> Result<usize> {
    let mut tokens = 0;
    for (_, event) in pollster::block_on(engine.step())? {
        match event {
            Event::Token(_) => tokens += 1,
            Event::Finished(_) => {}
            Event::Failed(why) => return Err(Error::Model(why)),
        }
    }
    Ok(tokens)
}
