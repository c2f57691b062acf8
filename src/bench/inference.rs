//! Measures the speed of prefill and decoding, and profiles a decode step.
//!
//! Decoding is timed as in serving: each step feeds the token that the last one sampled and samples the next, greedily. One
//! warm-up run precedes every measurement.

use super::{Profile, Timing, by_op, median};
use crate::backend::Backend;
use crate::formats::{ModelFile, Tensor, TensorData};
use crate::infer::{Drafts, Engine, EngineOptions, Event, Passes, Sampling, SequenceId};
use crate::model::{Role, Weight};
use crate::rng::Rng;
use crate::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    /// How often drafts were right, where the engine drafts.
    pub drafts: Option<Drafts>,
    /// How many passes tokens took, where they may take fewer than all.
    pub passes: Option<Passes>,
}

impl InferenceBench {
    fn new(file: &ModelFile, engine: &Engine, timing: Timing, steps: usize) -> Self {
        let (ternary_weights, weight_bytes) = (ternary_weights(file), steps * weight_bytes(file));
        let (buffer_bytes, drafts, passes) = (engine.device_bytes(), engine.drafts(), engine.passes());
        InferenceBench { timing, ternary_weights, weight_bytes, buffer_bytes, drafts, passes }
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

/// Each tensor, with how many of its weights a token uses and their bytes in a model file: of the experts of a layer, those that
/// are active.
fn used(file: &ModelFile) -> Vec<(&Tensor, usize, usize)> {
    let weights = file.config.weights(file.vocab);
    let share = |(tensor, weight): (_, &Weight)| {
        let (tensor, active): (&Tensor, _) = (tensor, weight.active(&file.config));
        (tensor, active, (tensor.data.bytes() as u64 * active as u64 / weight.elements() as u64) as usize)
    };
    file.tensors.iter().zip(&weights).map(share).collect()
}

/// Weights of the ternary layers.
fn ternary_weights(file: &ModelFile) -> usize {
    let ternary = |t: &Tensor| t.role == Role::Matrix && matches!(t.data, TensorData::Ternary(_));
    used(file).into_iter().filter(|(t, ..)| ternary(t)).map(|(_, weights, _)| weights).sum()
}

/// Bytes of the weights that a step of one row reads, in their size in a model file.
fn weight_bytes(file: &ModelFile) -> usize {
    // With a head of its own, the first table is the embedding, from which a step reads only a few rows.
    let tables = file.tensors.iter().filter(|t| t.role == Role::Table).count();
    used(file).into_iter().skip(usize::from(tables > 1)).map(|(_, _, bytes)| bytes).sum()
}

/// A measurement of sequences side by side.
#[derive(Clone, Debug)]
pub struct SequencesBench {
    /// Reading all prompts, up to the first token of each.
    pub prefill: Timing,
    /// Steps that give each sequence a token.
    pub decode: Timing,
    /// Weights of the ternary layers; each is multiplied once per token.
    pub ternary_weights: usize,
    /// Bytes of weights, in their size in a model file, that one step reads.
    pub weight_bytes: usize,
    /// Most rows of a step, and so tokens of prompts that it reads.
    pub most_rows: usize,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
}

/// Times sequences side by side: reading a prompt of `prompt` random tokens each, and then up to `most` tokens each. It is done
/// twice, the first time to warm up, unless that takes half of `time`. Decoding that takes longer than `time` ends early.
///
/// # Errors
/// When the sizes are out of range, the device fails, or the prompts take six times as long as `time`.
pub fn bench_sequences(
    file: &ModelFile,
    backend: &Backend,
    sequences: usize,
    (prompt, most): (usize, usize),
    time: Duration,
) -> Result<SequencesBench> {
    // While the last prompts are read, the first sequences go on: they have room for it.
    let tokens = most + sequences + 1;
    let options = EngineOptions { slots: sequences, context: prompt + tokens };
    let mut engine = Engine::new(file, backend, options)?;
    engine.set_stop(Vec::new());
    let mut rng = Rng::new(1);
    let (mut prefill, mut decode) = (0.0, Vec::new());
    let begun = Instant::now();
    for _ in 0..2 {
        let cancelled = Arc::new(AtomicBool::new(false));
        for _ in 0..sequences {
            let ids: Vec<u32> = (0..prompt).map(|_| rng.below(file.vocab as u64) as u32).collect();
            let sampling = Sampling { temperature: 0.0, max_tokens: tokens, ..Sampling::default() };
            engine.start(&ids, sampling, cancelled.clone())?;
        }
        let (start, mut answering) = (Instant::now(), HashSet::new());
        while answering.len() < sequences {
            answering.extend(draw(&mut engine)?);
            if begun.elapsed() > 6 * time {
                let (read, seconds) = (answering.len(), begun.elapsed().as_secs_f64());
                let what = format!("{read} of {sequences} prompts of {prompt} tokens are read after {seconds:.0} s");
                return Err(Error::Device(what));
            }
        }
        prefill = start.elapsed().as_secs_f64();
        decode.clear();
        while decode.is_empty() || decode.len() < most && begun.elapsed() < time {
            let start = Instant::now();
            draw(&mut engine)?;
            decode.push(start.elapsed().as_secs_f64());
        }
        cancelled.store(true, Ordering::Relaxed);
        draw(&mut engine)?;
        if begun.elapsed() > time / 2 {
            break;
        }
    }
    Ok(SequencesBench {
        prefill: Timing { tokens: sequences * prompt, seconds: vec![prefill] },
        decode: Timing { tokens: sequences, seconds: decode },
        ternary_weights: ternary_weights(file),
        weight_bytes: weight_bytes(file),
        most_rows: engine.most_rows(),
        buffer_bytes: engine.device_bytes(),
    })
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
        let mut drawn = 0;
        while drawn < tokens {
            drawn += draw(&mut engine)?.len();
        }
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    let steps = engine.drafts().map_or(tokens, |drafts| (tokens as f64 / drafts.tokens_a_step()) as usize);
    Ok(InferenceBench::new(file, &engine, Timing { tokens, seconds }, steps))
}

/// Times every node of the decode step after `prompt` tokens; every time is the median of `repeats` steps.
///
/// # Errors
/// When `repeats` or `prompt` is out of range, or the device fails.
pub fn profile_decode(file: &ModelFile, backend: &Backend, prompt: usize, repeats: usize) -> Result<Profile> {
    check_repeats(repeats)?;
    let (mut engine, prompt) = decoder(file, backend, prompt, 1)?;
    start(&mut engine, &prompt, 1)?;
    draw(&mut engine)?;
    let (program, nodes) = engine.single_row();
    let mut seconds = vec![Vec::new(); nodes.len()];
    // The inputs stay as the last step left them, so this samples the same token again.
    for _ in 0..repeats {
        program.time(nodes.clone())?.into_iter().zip(&mut seconds).for_each(|(time, times)| times.push(time));
    }
    let clock = program.clock();
    let timed = nodes.zip(seconds).map(|(i, times)| (i, median(times), 1));
    Ok(Profile { clock, ops: by_op(&program.plan().graph, timed) })
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
    while draw(engine)?.is_empty() {}
    Ok(())
}

/// Runs one step; returns the sequences that got a token.
fn draw(engine: &mut Engine) -> Result<Vec<SequenceId>> {
    let mut sampled = Vec::new();
    for (id, event) in pollster::block_on(engine.step())? {
        match event {
            Event::Token(_) => sampled.push(id),
            Event::Finished(_) => {}
            Event::Failed(why) => return Err(Error::Model(why)),
        }
    }
    Ok(sampled)
}
