//! One decode step as a graph: rows of several sequences, and the tensors that the host writes and reads.

use crate::Result;
use crate::backend::Program;
use crate::graph::{Access, DType, Graph, Section, TensorId};
use crate::model::{Context, Inputs, Model, PassNodes, State};
use crate::ops::{Exits, KEEP_ROWS, KV_APPEND, SampleRow, SamplingState};
use std::collections::HashSet;
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
    /// What lets rows take fewer passes through looped layers.
    pub exits: Option<Ends>,
}

/// The passes of a step whose rows may take fewer.
pub(super) struct Ends {
    tensors: Exits,
    pub passes: Vec<PassNodes>,
    /// For each pass the nodes that it needs when all rows have ended before.
    pub carried: Vec<Vec<Range<usize>>>,
}

impl Ends {
    /// (picks): the passes that the row of each took; 0 for all.
    pub fn ends(&self) -> TensorId {
        self.tensors.ends
    }

    /// Passes that a row takes at most.
    pub fn times(&self) -> usize {
        self.passes.len()
    }
}

/// The nodes of a pass that make keys and values, for a pass in which every row stays as it is.
fn carried(g: &Graph, pass: &PassNodes) -> Vec<Range<usize>> {
    let (mut needed, mut ranges) = (HashSet::new(), Vec::<Range<usize>>::new());
    for i in pass.layers.clone().rev() {
        let node = &g.nodes[i];
        let keeps = std::ptr::eq(node.op, &KEEP_ROWS);
        let bound = || node.tensors.iter().zip(node.op.bindings);
        let makes = bound().any(|(t, b)| b.access != Access::Read && needed.contains(t));
        if !(keeps || std::ptr::eq(node.op, &KV_APPEND) || makes) {
            continue;
        }
        // What the layer makes of its rows is not taken.
        let next = |name: &str| keeps && name == "next";
        needed.extend(bound().filter(|(_, b)| b.access != Access::Write && !next(b.name)).map(|(t, _)| *t));
        match ranges.last_mut() {
            Some(last) if last.start == i + 1 => last.start = i,
            _ => ranges.push(i..i + 1),
        }
    }
    ranges.reverse();
    ranges
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
        let threshold = model.config.exit_entropy;
        let tensors = (threshold > 0.0).then(|| {
            let [pick, ends] = [("pick", rows), ("ends", picks)].map(|(name, n)| g.persistent(name, &[n], DType::U32));
            Exits { pick, ends }
        });
        let readout = |g: &mut Graph, state| {
            let hidden = model.hidden(g, state);
            let wanted = g.gather_rows(hidden, index);
            let head = model.head(g, wanted);
            g.logits(&head, 0..picks)
        };
        let (section, (logits, draft, passes)) = g.section(name, |g| {
            let inputs = Inputs { ids, positions, context: Context::Cached { slots, state: layers } };
            g.mark_seen(ids, slots, sampling);
            let embedded = model.embed(g, &inputs);
            if let Some(tensors) = tensors {
                let last = g.temp("last_logits", &[picks, model.vocab], DType::F32);
                let passes = model.pass_with_exits(g, &inputs, embedded, tensors, |g, state, passes| {
                    let logits = readout(g, state);
                    g.copy(logits, last);
                    g.exit_rows(last, tensors, passes, threshold);
                });
                g.sample(last, sampling, params, tokens);
                return (last, None, Some((tensors, passes)));
            }
            let (state, _) = model.pass(g, &inputs, embedded, false);
            let logits = readout(g, state);
            g.sample(logits, sampling, params, tokens);
            let drawn = Drawn { inputs, state, index, tokens };
            (logits, drafts.then(|| Draft::build(g, model, sampling, &drawn)), None)
        });
        g.set_prefix(&before);
        let exits = passes.map(|(tensors, passes)| {
            let carried = passes.iter().map(|pass| carried(g, pass)).collect();
            Ends { tensors, passes, carried }
        });
        DecodeStep { section, rows, picks, tokens, logits, ids, positions, slots, index, params, draft, exits }
    }

    /// Runs the step up to node `end`. On a CPU, it leaves out the readouts that end no row, and of passes that no row takes all
    /// but keys and values. Returns the number of nodes that ran.
    pub async fn run(&self, program: &mut Program, rows: &Rows, end: usize) -> Result<usize> {
        let (mut at, mut ran) = (self.section.nodes().start, 0);
        let mut run = |program: &mut Program, nodes: Range<usize>| {
            ran += nodes.len();
            program.run(nodes)
        };
        let fed = rows.slots.iter().filter(|slot| **slot != u32::MAX).count();
        let may: Vec<usize> = rows.may_end().collect();
        if let Some(Ends { tensors, passes, carried }) = self.exits.as_ref().filter(|_| program.runs_at_once()) {
            for (PassNodes { layers, readout }, next) in passes.iter().zip(1..passes.len()) {
                run(program, at..layers.end)?;
                at = readout.end;
                if may.is_empty() {
                    continue;
                }
                run(program, readout.clone())?;
                if may.len() < fed {
                    continue;
                }
                let ends: Vec<u32> = program.fetch(tensors.ends).await?;
                if may.iter().all(|pick| ends[*pick] != 0) {
                    carried[next..].iter().flatten().try_for_each(|nodes| run(program, nodes.clone()))?;
                    at = passes[passes.len() - 1].readout.end;
                    break;
                }
            }
        }
        run(program, at..end)?;
        Ok(ran)
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
        if let Some(exits) = &self.exits {
            program.write(exits.tensors.pick, &rows.pick);
            program.write(exits.tensors.ends, &vec![0u32; self.picks]);
        }
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
    /// The number of the token behind each row, if the row may take fewer passes than the model has: if the model drew what it
    /// feeds.
    pub pick: Vec<u32>,
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
    /// The numbers of the tokens whose rows may take fewer passes.
    pub fn may_end(&self) -> impl Iterator<Item = usize> {
        self.pick.iter().filter(|pick| **pick != u32::MAX).map(|pick| *pick as usize)
    }

    /// Pads with rows that change nothing and draw nothing.
    pub fn pad(&mut self, step: &DecodeStep) {
        if !self.ids.is_empty() {
            self.ids.resize(step.rows, 0);
        }
        self.positions.resize(step.rows, 0);
        self.slots.resize(step.rows, u32::MAX);
        self.index.resize(step.picks, u32::MAX);
        self.pick.resize(step.rows, u32::MAX);
        self.next.resize(step.rows, u32::MAX);
        self.drawn.resize(step.rows, u32::MAX);
        for params in [&mut self.params, &mut self.draft_params] {
            while params.len() < step.picks * SampleRow::NOTHING.len() {
                params.extend(SampleRow::NOTHING);
            }
        }
    }
}
