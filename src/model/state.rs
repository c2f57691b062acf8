//! What the layers of a model remember between the steps of decoding.
//!
//! The contract between a step and the layers:
//! - The rows of a sequence are consecutive, and their positions rise by one from row to row.
//! - A row at position 0 starts its slot afresh. Nothing else resets a slot.
//! - A row whose slot is `u32::MAX` is padding. It changes no state, and its output is not used.
//! - What a sequence gets depends on its own rows alone: not on how they were divided into steps, nor on other slots.

use crate::graph::TensorId;
use crate::ops::{DeltaState, KvCache};

/// The state of every layer of a model, made by [`Model::state`](super::Model::state).
pub struct State {
    /// (slots, slot_pages): the pages of each sequence in the caches of all layers, [`PAGE`](crate::ops::PAGE) positions each.
    pub pages: TensorId,
    pub(super) layers: Vec<LayerState>,
}

impl State {
    /// The tensors that hold pages, each with its bytes when there are so many.
    pub fn sizes(&self, pages: usize) -> Vec<(TensorId, usize)> {
        let mut sizes = Vec::new();
        for layer in &self.layers {
            if let LayerState::Attention(cache) = layer {
                sizes.extend([cache.k, cache.v].map(|t| (t, cache.bytes(pages))));
            }
        }
        sizes
    }
}

/// The state of one layer. Each mixer has its own kind.
pub(super) enum LayerState {
    /// Keys and values of the tokens so far.
    Attention(KvCache),
    /// The last inputs of the convolution, and the state of the delta rule.
    DeltaNet(DeltaState),
    #[cfg(test)]
    RunningMean(TensorId),
}

/// What a token can see.
#[derive(Clone, Copy)]
pub enum Context<'a> {
    /// The rows are this many sequences of equal length. A row at position 0 starts afresh, as in a slot: a token sees the
    /// tokens of its own sequence from the last such row on.
    Batch(usize),
    /// Each row continues the sequence in its slot.
    Cached {
        /// (rows): the slot of each row.
        slots: TensorId,
        /// What the slots hold.
        state: &'a State,
    },
}
