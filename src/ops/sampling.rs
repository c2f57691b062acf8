//! Drawing tokens from logits, on the device.

use super::{MARK_SEEN, SAMPLE};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::mark_seen::MarkSeenArgs;
use cpu_kernels::ops::sample::{SAMPLE_PARAMS, SampleArgs};

/// What sampling remembers of each sequence.
#[derive(Clone, Copy, Debug)]
pub struct SamplingState {
    /// (slots, vocab): added to the logits.
    pub bias: TensorId,
    /// (slots, vocab): 1 for every token that the sequence holds.
    pub seen: TensorId,
}

/// How a row's token is drawn; the words that the `sample` op reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRow {
    /// Which sequence.
    pub slot: u32,
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Only the likeliest tokens that hold this share of the probability.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest.
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub seed: u32,
    /// Tokens drawn for this sequence so far.
    pub counter: u32,
}

impl SampleRow {
    /// Words of a row that draws nothing.
    pub const NOTHING: [u32; SAMPLE_PARAMS] = [u32::MAX; SAMPLE_PARAMS];

    pub fn words(&self) -> [u32; SAMPLE_PARAMS] {
        let [temperature, top_p, min_p, penalty] =
            [self.temperature, self.top_p, self.min_p, self.repetition_penalty].map(f32::to_bits);
        [self.slot, temperature, self.top_k, top_p, min_p, penalty, self.seed, self.counter]
    }
}

impl Graph {
    /// State for `slots` sequences; zero it when one starts.
    pub fn sampling_state(&mut self, slots: usize, vocab: usize) -> SamplingState {
        SamplingState {
            bias: self.persistent("bias", &[slots, vocab], DType::F32),
            seen: self.persistent("seen", &[slots, vocab], DType::U32),
        }
    }

    /// Notes the tokens `ids` (rows) of the sequences `slots` (rows).
    pub fn mark_seen(&mut self, ids: TensorId, slots: TensorId, state: SamplingState) {
        let (rows, vocab) = (self.tensor(ids).elements(), self.matrix(state.seen).1);
        self.push(&MARK_SEEN, MarkSeenArgs { rows: rows as u32, vocab: vocab as u32 }, &[ids, slots, state.seen]);
    }

    /// Draws a token for each row of logits (rows, vocab) into `tokens` (rows), as `params` (rows, 8) say.
    pub fn sample(&mut self, logits: TensorId, state: SamplingState, params: TensorId, tokens: TensorId) {
        let (rows, vocab) = self.matrix(logits);
        let args = SampleArgs { rows: rows as u32, vocab: vocab as u32 };
        self.push(&SAMPLE, args, &[logits, state.bias, params, state.seen, tokens]);
    }
}
