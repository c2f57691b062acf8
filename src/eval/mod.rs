//! Evaluates a model file: perplexity, answers to the synthetic exam, and whether two backends agree on it.

use crate::backend::{Backend, Difference, first_not_finite};
use crate::data::{Tokens, bits_per_byte, sampler, synthetic};
use crate::formats::ModelFile;
use crate::graph::{DType, Graph, Plan};
use crate::infer::{Engine, EngineOptions, Sampling, load_weights};
use crate::model::{Context, Inputs, Model};
use crate::ops::{IGNORE, Targets};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sequences scored together.
const BATCH: usize = 4;

/// Mean cross-entropy of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Mean cross-entropy in nats per token.
    pub nats_per_token: f64,
    /// Mean cross-entropy in bits per byte of text, comparable between tokenizers; `None` if the number of bytes is unknown
    /// or 0.
    pub bits_per_byte: Option<f64>,
    /// Number of tokens scored.
    pub tokens: usize,
    /// Passes that a token took through the shared layers of a loop, on average; `None` if all took the same.
    pub passes: Option<f64>,
}

impl Perplexity {
    /// exp(nats per token).
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token.exp()
    }
}

/// Scores `tokens`, the encoding of `bytes` bytes of text, in windows of the model's context that do not overlap. Documents in
/// a window see each other, whether the model was trained so or not. With an exit entropy, the tokens of a window are fed one by
/// one, as those are that a model draws.
///
/// # Errors
/// When there are fewer tokens than one window needs, they cannot be read, an id is beyond the vocabulary, the loss is not
/// finite, or the device fails.
pub fn perplexity(file: &ModelFile, backend: &Backend, tokens: &Tokens, bytes: Option<u64>) -> Result<Perplexity> {
    let seq = file.config.seq_len;
    let windows = sampler::eval_windows(tokens.len(), seq, usize::MAX);
    if windows.is_empty() {
        let n = tokens.len();
        return Err(Error::usage(format!("{n} tokens are fewer than one window of {} tokens", seq + 1)));
    }
    let id = tokens.largest()?;
    if id as usize >= file.vocab {
        return Err(Error::usage(format!("token {id}: the model has {} tokens", file.vocab)));
    }
    let scored = windows.len() * seq;
    let (sum, passes) = if file.config.exit_entropy > 0.0 {
        let (sum, passes) = score_one_by_one(file, backend, tokens, &windows)?;
        (sum, Some(passes))
    } else {
        (score(file, backend, tokens, &windows)?, None)
    };
    let nats_per_token = sum / scored as f64;
    let bits_per_byte = bits_per_byte(nats_per_token, tokens.len(), bytes);
    Ok(Perplexity { nats_per_token, bits_per_byte, tokens: scored, passes })
}

/// The sum of the losses of all tokens in `windows`, and the passes that a token took on average.
fn score_one_by_one(file: &ModelFile, backend: &Backend, tokens: &Tokens, windows: &[usize]) -> Result<(f64, f64)> {
    let seq = file.config.seq_len;
    let mut engine = Engine::new(file, backend, EngineOptions { slots: 1, context: seq })?;
    let mut sum = 0.0;
    for start in windows {
        let (inputs, wanted) = sampler::batch(tokens, &[*start], seq)?;
        for (position, (id, target)) in inputs.iter().zip(wanted).enumerate() {
            let logits = pollster::block_on(engine.chunk_logits(&[*id], position, true))?;
            sum += -log_softmax(&logits, target as usize);
        }
        finite(sum, || Ok(None))?;
    }
    Ok((sum, engine.passes().unwrap_or_default().mean()))
}

/// The logarithm of a token's probability.
fn log_softmax(logits: &[f32], token: usize) -> f64 {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - top).exp()).sum();
    f64::from(logits[token]) - top - sum.ln()
}

/// Refuses a sum that is not finite; `op` names the first op that made such a value.
fn finite(sum: f64, op: impl FnOnce() -> Result<Option<String>>) -> Result<()> {
    if sum.is_finite() {
        return Ok(());
    }
    let why = op()?.map_or(String::new(), |op| format!(": {op}"));
    Err(Error::Model(format!("the loss is not a finite number{why}")))
}

/// The sum of the losses of all tokens in `windows`.
fn score(file: &ModelFile, backend: &Backend, tokens: &Tokens, windows: &[usize]) -> Result<f64> {
    let seq = file.config.seq_len;
    let (mut g, rows) = (Graph::new(), BATCH * seq);
    let model = Model::for_scoring(&mut g, &file.config, file.vocab);
    let [ids, positions, targets] = ["ids", "positions", "targets"].map(|name| g.persistent(name, &[rows], DType::U32));
    let to = Targets { ids: targets, losses: g.persistent("losses", &[rows], DType::F32) };
    let (score, ()) = g.section("score", |g| {
        let inputs = Inputs { ids, positions, context: Context::Batch(BATCH) };
        let embedded = model.embed(g, &inputs);
        let forward = model.forward(g, &inputs, embedded, false);
        g.head_loss(&forward.head, to, model.head_chunk(rows), None);
    });
    let mut program = backend.prepare(Arc::new(Plan::new(g)))?;
    load_weights(&mut program, &model, file)?;
    program.write(positions, &(0..rows).map(|r| (r % seq) as u32).collect::<Vec<_>>());
    let mut sum = 0.0;
    for starts in windows.chunks(BATCH) {
        let (mut inputs, mut wanted) = sampler::batch(tokens, starts, seq)?;
        inputs.resize(rows, 0);
        wanted.resize(rows, IGNORE);
        program.write(ids, &inputs);
        program.write(targets, &wanted);
        program.run_section(score)?;
        sum += program.read::<f32>(to.losses)?.iter().map(|l| f64::from(*l)).sum::<f64>();
        finite(sum, || pollster::block_on(first_not_finite(&mut program, score.nodes())))?;
    }
    Ok(sum)
}

/// The result of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Number of questions.
    pub asked: usize,
    /// Number of questions that were answered exactly.
    pub right: usize,
}

/// Asks every held-out question of the synthetic data, with greedy decoding. Returns the scores by task.
///
/// # Errors
/// When the model has no tokenizer or the device fails.
pub fn synthetic(file: &ModelFile, backend: &Backend) -> Result<BTreeMap<&'static str, Score>> {
    let tokenizer = file.tokenizer()?.ok_or_else(|| Error::usage("the model has no tokenizer"))?;
    let questions = synthetic::held_out();
    let prompts = questions.iter().map(|q| tokenizer.encode_with_specials(&q.prompt)).collect::<Result<Vec<_>>>()?;
    let mut engine = Engine::new(file, backend, EngineOptions { slots: 16, context: file.config.seq_len })?;
    let sampling = Sampling { temperature: 0.0, max_tokens: 64, ..Sampling::default() };
    let answers = engine.generate_all(&prompts, &sampling)?;
    let mut scores: BTreeMap<&'static str, Score> = BTreeMap::new();
    for (question, (tokens, _)) in questions.iter().zip(answers) {
        let score = scores.entry(question.task).or_default();
        score.asked += 1;
        score.right += usize::from(tokenizer.decode(&tokens).trim() == question.answer.trim());
    }
    Ok(scores)
}

/// Runs a prompt node by node on two backends with equal inputs. Returns the outputs that differ.
///
/// # Errors
/// When a device fails.
pub fn parity(file: &ModelFile, reference: &Backend, other: &Backend, prompt: &[u32]) -> Result<Vec<Difference>> {
    let options = EngineOptions { slots: 1, context: file.config.seq_len };
    let (mut reference, mut other) = (Engine::new(file, reference, options)?, Engine::new(file, other, options)?);
    reference.compare(&mut other, prompt)
}
