//! One decode step as a graph: rows of several sequences, and the tensors that the host writes and reads.

use crate::backend::Program;
use crate::graph::{DType, Graph, Section, TensorId};
use crate::model::{Context, Inputs, Model, State};
use crate::ops::{SampleRow, SamplingState};
use std::ops::Range;

/// Numbers of rows that steps are prepared for. A step with fewer rows is padded.
pub(super) const SIZES: [(usize, &str); 6] =
    [(1, "rows 1"), (4, "rows 4"), (16, "rows 16"), (64, "rows 64"), (128, "rows 128"), (512, "rows 512")];

/// The step in which one sequence feeds a token and a draft. Only engines that draft have it.
pub(super) const PAIR: (usize, &str) = (2, "rows 2");

/// A step of a fixed number of rows.
pub(super) struct DecodeStep {
    pub section: Section,
    pub rows: usize,
    /// Rows that get logits and a token, at most.
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
    /// What drafts the tokens behind those that are drawn.
    pub draft: Option<Draft>,
}

/// The first further head of a model, in a step: it drafts the token behind each that the step draws.
pub(super) struct Draft {
    /// Its first node.
    start: usize,
    /// (picks): the drafts.
    pub tokens: TensorId,
    /// (rows): the token that follows each row, where it is known before the step.
    next: TensorId,
    /// (rows): which of the tokens that the step draws follows each row, where one does.
    drawn: TensorId,
    /// (picks, 8): how each draft is drawn.
    params: TensorId,
}

/// Where a draft is made from: the tensors of its step.
struct Drawn<'a> {
    inputs: Inputs<'a>,
    /// (rows, dim): the state behind the last layer.
    state: TensorId,
    /// (picks): the rows, and the tokens that were drawn for them.
    index: TensorId,
    tokens: TensorId,
}

impl Draft {
    fn build(g: &mut Graph, model: &Model, sampling: SamplingState, from: &Drawn<'_>) -> Draft {
        let start = g.nodes.len();
        let (rows, picks) = (g.shape(from.inputs.ids).to_vec(), g.shape(from.tokens).to_vec());
        let [next, drawn] = ["next", "drawn"].map(|name| g.persistent(name, &rows, DType::U32));
        let tokens = g.persistent("drafts", &picks, DType::U32);
        let params = g.persistent("drafts.params", &[picks[0], SampleRow::NOTHING.len()], DType::U32);
        // The embedding of an id that is none is zero.
        let known = model.embed(g, &Inputs { ids: next, ..from.inputs });
        let new = model.embed(g, &Inputs { ids: from.tokens, ..from.inputs });
        let new = g.gather_rows(new, drawn);
        let token = g.add_tensors(known, new);
        let state = model.further(g, 0, &from.inputs, [from.state, token], false);
        let wanted = g.gather_rows(state, from.index);
        let hidden = model.further_hidden(g, 0, wanted);
        let head = model.head(g, hidden);
        let logits = g.logits(&head, 0..picks[0]);
        g.sample(logits, sampling, params, tokens);
        Draft { start, tokens, next, drawn, params }
    }
}

impl DecodeStep {
    /// Appends the step to a graph, with `most` picks at most. With `drafts`, the model's first further head takes part.
    pub fn build(
        g: &mut Graph,
        model: &Model,
        layers: &State,
        sampling: SamplingState,
        (rows, name): (usize, &'static str),
        (most, drafts): (usize, bool),
    ) -> DecodeStep {
        let picks = rows.min(most);
        let before = g.set_prefix(&format!("{name}."));
        let [ids, positions, slots] = ["ids", "positions", "slots"].map(|name| g.persistent(name, &[rows], DType::U32));
        let [index, tokens] = ["index", "tokens"].map(|name| g.persistent(name, &[picks], DType::U32));
        let params = g.persistent("params", &[picks, SampleRow::NOTHING.len()], DType::U32);
        let (section, (logits, draft)) = g.section(name, |g| {
            let inputs = Inputs { ids, positions, context: Context::Cached { slots, state: layers } };
            g.mark_seen(ids, slots, sampling);
            let embedded = model.embed(g, &inputs);
            let (state, _) = model.pass(g, &inputs, embedded, false);
            let hidden = model.hidden(g, state);
            let wanted = g.gather_rows(hidden, index);
            let head = model.head(g, wanted);
            let logits = g.logits(&head, 0..picks);
            g.sample(logits, sampling, params, tokens);
            let drawn = Drawn { inputs, state, index, tokens };
            (logits, drafts.then(|| Draft::build(g, model, sampling, &drawn)))
        });
        g.set_prefix(&before);
        DecodeStep { section, rows, picks, tokens, logits, ids, positions, slots, index, params, draft }
    }

    /// The nodes up to the logits and the tokens drawn from them. What follows may take the memory of the logits.
    pub fn scoring(&self) -> Range<usize> {
        let nodes = self.section.nodes();
        nodes.start..self.draft.as_ref().map_or(nodes.end, |draft| draft.start)
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
        if let Some(draft) = &self.draft {
            program.write(draft.next, &rows.next);
            program.write(draft.drawn, &rows.drawn);
            program.write(draft.params, &rows.draft_params);
        }
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
    /// For each of these tokens the draft that its row fed, if it did: without the same token before it, it does not count.
    pub guesses: Vec<Option<u32>>,
    /// How the draft behind each of these tokens is drawn.
    pub draft_params: Vec<u32>,
    /// The token that follows each row, where it is known.
    pub next: Vec<u32>,
    /// The number of the token that follows each row, where the step draws it.
    pub drawn: Vec<u32>,
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
        self.next.resize(step.rows, u32::MAX);
        self.drawn.resize(step.rows, u32::MAX);
        for params in [&mut self.params, &mut self.draft_params] {
            while params.len() < step.picks * SampleRow::NOTHING.len() {
                params.extend(SampleRow::NOTHING);
            }
        }
    }
}
