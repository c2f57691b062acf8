//! One decode step as a graph: rows of several sequences, and the tensors that the host writes and reads.

use crate::backend::Program;
use crate::graph::{DType, Graph, Section, TensorId};
use crate::model::{Context, Inputs, Model, State};
use crate::ops::{SampleRow, SamplingState};

/// Numbers of rows that steps are prepared for. A step with fewer rows is padded.
pub(super) const SIZES: [(usize, &str); 6] =
    [(1, "rows 1"), (4, "rows 4"), (16, "rows 16"), (64, "rows 64"), (128, "rows 128"), (512, "rows 512")];

/// A step of a fixed number of rows.
pub(super) struct DecodeStep {
    pub section: Section,
    pub rows: usize,
    /// Rows that get logits and a token, at most: one for each slot.
    pub picks: usize,
    /// (picks): the tokens that were drawn.
    pub tokens: TensorId,
    /// (picks, vocab).
    pub logits: TensorId,
    ids: TensorId,
    positions: TensorId,
    slots: TensorId,
    /// (picks): rows that get logits.
    index: TensorId,
    /// (picks, 8): how each token is drawn.
    params: TensorId,
}

impl DecodeStep {
    /// Appends the step to a graph. `size` is one of [`SIZES`].
    pub fn build(
        g: &mut Graph,
        model: &Model,
        layers: &State,
        sampling: SamplingState,
        (rows, name): (usize, &'static str),
        slots: usize,
    ) -> DecodeStep {
        let picks = rows.min(slots);
        let before = g.set_prefix(&format!("{name}."));
        let [ids, positions, slots] = ["ids", "positions", "slots"].map(|name| g.persistent(name, &[rows], DType::U32));
        let [index, tokens] = ["index", "tokens"].map(|name| g.persistent(name, &[picks], DType::U32));
        let params = g.persistent("params", &[picks, SampleRow::NOTHING.len()], DType::U32);
        let (section, logits) = g.section(name, |g| {
            let inputs = Inputs { ids, positions, context: Context::Cached { slots, state: layers } };
            g.mark_seen(ids, slots, sampling);
            let embedded = model.embed(g, &inputs);
            let (state, _) = model.pass(g, &inputs, embedded, false);
            let hidden = model.hidden(g, state);
            let wanted = g.gather_rows(hidden, index);
            let head = model.head(g, wanted);
            let logits = g.logits(&head, 0..picks);
            g.sample(logits, sampling, params, tokens);
            logits
        });
        g.set_prefix(&before);
        DecodeStep { section, rows, picks, tokens, logits, ids, positions, slots, index, params }
    }

    /// Writes what a step reads. The rows are padded to its size. Without ids, those that the step drew last are fed.
    pub fn write(&self, program: &mut Program, rows: &Rows) {
        match rows.ids.is_empty() {
            true => program.copy(self.tokens, self.ids),
            false => program.write(self.ids, &rows.ids),
        }
        program.write(self.positions, &rows.positions);
        program.write(self.slots, &rows.slots);
        program.write(self.index, &rows.index);
        program.write(self.params, &rows.params);
    }
}

/// The rows that a step feeds.
#[derive(Default)]
pub(super) struct Rows {
    /// Number of the step that runs them.
    pub step: usize,
    pub ids: Vec<u32>,
    pub positions: Vec<u32>,
    pub slots: Vec<u32>,
    /// Rows that get a token.
    pub index: Vec<u32>,
    /// How each of these tokens is drawn.
    pub params: Vec<u32>,
    /// Slots of these tokens.
    pub picked: Vec<usize>,
    /// (slot, rows) fed.
    pub fed: Vec<(usize, usize)>,
}

impl Rows {
    /// Pads with rows that change nothing and draw nothing.
    pub fn pad(&mut self, step: &DecodeStep) {
        if !self.ids.is_empty() {
            self.ids.resize(step.rows, 0);
        }
        self.positions.resize(step.rows, 0);
        self.slots.resize(step.rows, u32::MAX);
        self.index.resize(step.picks, u32::MAX);
        while self.params.len() < step.picks * SampleRow::NOTHING.len() {
            self.params.extend(SampleRow::NOTHING);
        }
    }
}
