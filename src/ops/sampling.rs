//! Sampling of tokens from logits, on the device.

use super::{MARK_SEEN, SAMPLE};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::mark_seen::MarkSeenArgs;
use cpu_kernels::ops::sample::{SAMPLE_PARAMS, SampleArgs};

/// The sampling state of each slot.
#[derive(Clone, Copy, Debug)]
pub struct SamplingState {
    /// (slots, vocab) f32: the bias that is added to the logits.
    pub bias: TensorId,
    /// (slots, vocab) u32: 1 for every token that occurs in the sequence.
    pub seen: TensorId,
}

/// The sampling parameters of a row, which the `sample` op reads as words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRow {
    /// The sequence's slot.
    pub slot: u32,
    /// Temperature; 0 chooses the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens are sampled (Fan et al. 2018); 0 allows all.
    pub top_k: u32,
    /// Only the fewest most likely tokens that have this probability together are sampled (Holtzman et al. 2020); 1 allows all.
    pub top_p: f32,
    /// Only tokens with at least this probability relative to the most likely one are sampled (Nguyen et al. 2024).
    pub min_p: f32,
    /// Logits of tokens that occurred are divided by it if positive, otherwise multiplied (Keskar et al. 2019); 1 has no effect.
    pub repetition_penalty: f32,
    /// Seed of the sequence.
    pub seed: u32,
    /// Number of tokens sampled for this sequence so far. With the seed it determines the random number.
    pub counter: u32,
}

impl SampleRow {
    /// The words of an empty row, for which no token is sampled.
    pub const NOTHING: [u32; SAMPLE_PARAMS] = [u32::MAX; SAMPLE_PARAMS];

    /// The words that the `sample` op reads.
    pub fn words(&self) -> [u32; SAMPLE_PARAMS] {
        // The op multiplies: a GPU's division is not exact.
        let sharpness = if self.temperature == 0.0 { 0.0 } else { self.temperature.recip().min(f32::MAX) };
        let [sharpness, top_p, min_p, penalty] =
            [sharpness, self.top_p, self.min_p, self.repetition_penalty].map(f32::to_bits);
        [self.slot, sharpness, self.top_k, top_p, min_p, penalty, self.seed, self.counter]
    }
}

impl Graph {
    /// Makes the state of `slots` sequences. The caller must zero a slot's state when a sequence starts.
    pub fn sampling_state(&mut self, slots: usize, vocab: usize) -> SamplingState {
        SamplingState {
            bias: self.persistent("bias", &[slots, vocab], DType::F32),
            seen: self.persistent("seen", &[slots, vocab], DType::U32),
        }
    }

    /// Marks the tokens `ids` (rows) as seen in the slots `slots` (rows).
    pub fn mark_seen(&mut self, ids: TensorId, slots: TensorId, state: SamplingState) {
        let (rows, vocab) = (self.tensor(ids).elements(), self.matrix(state.seen).1);
        self.push(&MARK_SEEN, MarkSeenArgs { rows: rows as u32, vocab: vocab as u32 }, &[ids, slots, state.seen]);
    }

    /// Samples a token for each row of logits (rows, vocab) into `tokens` (rows) and marks it as seen. `params` (rows, 8) are
    /// the [`SampleRow::words`] of each row.
    ///
    /// # Panics
    /// When the vocabulary has 2^20 tokens or more.
    pub fn sample(&mut self, logits: TensorId, state: SamplingState, params: TensorId, tokens: TensorId) {
        let (rows, vocab) = self.matrix(logits);
        assert!(vocab < 1 << 20, "sample: a vocabulary of {vocab} tokens");
        let args = SampleArgs { rows: rows as u32, vocab: vocab as u32 };
        self.push(&SAMPLE, args, &[logits, state.bias, params, state.seen, tokens]);
    }
}
