//! The head and the loss, in chunks of rows, so that the logits of a whole batch never exist at once; and of a large vocabulary in
//! parts of the tokens, so that every device can bind them.

use super::bitlinear::{Int8Weight, QuantRows, TernaryWeight};
use super::{
    BLOCK, CROSS_ENTROPY, CROSS_ENTROPY_GRADIENT, CROSS_ENTROPY_PARTIAL, FILTER_TARGETS, MATMUL, SOFTMAX_MEAN, SUM,
    TERNARY_MATMUL_BACKWARD_INPUT, TERNARY_MATMUL_BACKWARD_WEIGHT,
};
use crate::graph::{self, DType, Graph, TensorId};
use cpu_kernels::ops::cross_entropy::CrossEntropyArgs;
use cpu_kernels::ops::cross_entropy_gradient::CrossEntropyGradientArgs;
use cpu_kernels::ops::cross_entropy_partial::CrossEntropyPartialArgs;
use cpu_kernels::ops::filter_targets::FilterTargetsArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::softmax_mean::SoftmaxMeanArgs;
use cpu_kernels::ops::sum::SumArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;
use std::ops::Range;

/// The target of a row without loss and gradient.
pub const IGNORE: u32 = u32::MAX;

/// The language-model head: its weight and its input.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    /// An f32 or f16 weight: a matrix of its own, or the embedding.
    Dense {
        /// (rows, dim): the final hidden state.
        x: TensorId,
        /// (vocab, dim).
        weight: TensorId,
        /// (vocab, dim): the parameter that was rounded to `weight`; it gets the gradient.
        latent: Option<TensorId>,
    },
    /// A ternary weight.
    Ternary {
        /// (rows, dim): `input`, quantised.
        x: QuantRows,
        /// (rows, dim): the final hidden state.
        input: TensorId,
        /// (vocab, dim).
        weight: TernaryWeight,
        /// (vocab, dim): the parameter that was quantised to `weight`; it gets the gradient.
        latent: Option<TensorId>,
    },
    /// An int8 weight, which is not trained.
    Int8 {
        /// (rows, dim): `input`, quantised.
        x: QuantRows,
        /// (rows, dim): the final hidden state.
        input: TensorId,
        /// (vocab, dim).
        weight: Int8Weight,
    },
}

/// The targets of the loss, and where it is written.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// (rows) u32: the next token of each row, or [`IGNORE`].
    pub ids: TensorId,
    /// (rows) f32, written: the cross-entropy of each row in nats.
    pub losses: TensorId,
}

/// What training minimises: scale * (sum of cross-entropies - entropy * sum of entropies).
#[derive(Clone, Copy, Debug, Default)]
pub struct Objective {
    /// One over the number of losses, for their mean.
    pub scale: f32,
    /// How much the entropy of the predicted distribution counts (Pereyra et al. 2017, "Regularizing Neural Networks by
    /// Penalizing Confident Output Distributions"). 0: not at all.
    pub entropy: f32,
}

impl Head {
    /// (rows, dim): the final hidden state.
    pub fn input(&self) -> TensorId {
        match *self {
            Head::Dense { x, .. } => x,
            Head::Ternary { input, .. } | Head::Int8 { input, .. } => input,
        }
    }

    /// The tensors of its weight, each with a row for each token.
    fn tensors(&self) -> Vec<TensorId> {
        match *self {
            Head::Dense { weight, latent, .. } => [weight].into_iter().chain(latent).collect(),
            Head::Ternary { weight, latent, .. } => [weight.codes, weight.scales].into_iter().chain(latent).collect(),
            Head::Int8 { weight, .. } => vec![weight.codes, weight.scales],
        }
    }

    /// The parameter that gets the gradient.
    fn latent(&self) -> Option<TensorId> {
        match *self {
            Head::Dense { latent, .. } | Head::Ternary { latent, .. } => latent,
            Head::Int8 { .. } => None,
        }
    }

    /// Number of tokens.
    fn vocab(&self, g: &Graph) -> usize {
        g.shape(self.tensors()[0])[0]
    }

    /// The tokens in parts, so few in each that ops can bind its rows of the weight, and `rows` rows of its logits.
    fn parts(&self, g: &Graph, rows: usize) -> Vec<Range<usize>> {
        let weight = self.tensors().into_iter().map(|t| g.row_bytes(t));
        let bytes = weight.chain([rows * size_of::<f32>()]).max().unwrap_or(0);
        graph::parts(self.vocab(g), bytes).collect()
    }

    /// The head of some of the tokens.
    fn part(&self, g: &mut Graph, tokens: Range<usize>) -> Head {
        match *self {
            Head::Dense { x, weight, latent } => {
                let latent = latent.map(|latent| g.rows(latent, tokens.clone()));
                Head::Dense { x, weight: g.rows(weight, tokens), latent }
            }
            Head::Ternary { x, input, weight, latent } => {
                let latent = latent.map(|latent| g.rows(latent, tokens.clone()));
                Head::Ternary { x, input, weight: weight.rows(g, tokens), latent }
            }
            Head::Int8 { x, input, weight } => Head::Int8 { x, input, weight: weight.rows(g, tokens) },
        }
    }
}

impl Graph {
    /// Logits of the rows `rows` -> (rows.len(), vocab).
    pub fn logits(&mut self, head: &Head, rows: Range<usize>) -> TensorId {
        let (parts, vocab, count) = (head.parts(self, 0), head.vocab(self), rows.len());
        if parts.len() == 1 {
            return self.logits_of(head, rows);
        }
        let all = self.temp("logits", &[count, vocab], DType::F32);
        for tokens in parts {
            let part = head.part(self, tokens.clone());
            let logits = self.logits_of(&part, rows.clone());
            self.place_columns(logits, all, tokens.start);
        }
        all
    }

    /// [`Graph::logits`] of a head that is a single part.
    fn logits_of(&mut self, head: &Head, rows: Range<usize>) -> TensorId {
        let logits = match *head {
            Head::Dense { x, weight, .. } => self.linear(x, weight, rows),
            Head::Ternary { x, weight, .. } => self.ternary_matmul(x, &weight, rows),
            Head::Int8 { x, weight, .. } => self.int8_matmul(x, &weight, rows),
        };
        self.name(logits, "logits")
    }

    /// Cross-entropy of every row, in chunks of `chunk` rows. With an objective also its gradients: the weight's is added to the
    /// gradient of `latent`, the input's (rows, dim) is returned.
    ///
    /// # Panics
    /// When gradients are requested and the head is int8, or its `latent` has no gradient.
    pub fn head_loss(
        &mut self,
        head: &Head,
        to: Targets,
        chunk: usize,
        objective: Option<Objective>,
    ) -> Option<TensorId> {
        let (rows, dim) = self.matrix(head.input());
        let Objective { scale: grad_scale, entropy } = objective.unwrap_or_default();
        let gradients = objective.map(|_| {
            let dw = head.latent().and_then(|w| self.gradient(w)).expect("the head's weight has a gradient");
            (self.temp("d.hidden", &[rows, dim], DType::F32), dw)
        });
        let parts = head.parts(self, chunk.min(rows));
        for start in (0..rows).step_by(chunk) {
            let range = start..(start + chunk).min(rows);
            let (logits, softmax) = self.cross_entropy(head, to, range.clone(), &parts, grad_scale);
            let Some((dx, dw)) = gradients else { continue };
            for (tokens, logits) in parts.iter().zip(&logits).filter(|_| entropy != 0.0) {
                let [rows, cols] = [range.len(), tokens.len()].map(|n| n as u32);
                let args = SoftmaxMeanArgs { rows, cols, scale: 1.0 / grad_scale };
                self.push(&SOFTMAX_MEAN, args, &[*logits, softmax]);
            }
            for (tokens, logits) in parts.iter().zip(logits) {
                let [rows, cols, first, row] = [range.len(), tokens.len(), tokens.start, start].map(|n| n as u32);
                let args = CrossEntropyGradientArgs { rows, cols, first, row, grad_scale, entropy };
                self.push(&CROSS_ENTROPY_GRADIENT, args, &[to.ids, softmax, logits]);
                let (part, dw) = (head.part(self, tokens.clone()), self.rows(dw, tokens.clone()));
                let beta = if first == 0 { 0.0 } else { 1.0 };
                self.head_backward(&part, start, logits, (dx, beta), dw);
            }
        }
        gradients.map(|(dx, _)| dx)
    }

    /// The targets of the `keep` rows of each sequence of `seq` rows that have the largest losses; the others have none.
    pub fn hardest(&mut self, of: Targets, seq: usize, keep: usize) -> TensorId {
        let rows = self.tensor(of.ids).elements();
        let kept = self.temp("kept", &[rows], DType::U32);
        let [rows, seq, keep] = [rows, seq, keep].map(|n| n as u32);
        self.push(&FILTER_TARGETS, FilterTargetsArgs { rows, seq, keep }, &[of.losses, of.ids, kept]);
        kept
    }

    /// Cross-entropy of the rows `rows`. Returns the logits of each part of the tokens, and what the gradient of the
    /// cross-entropy takes besides.
    fn cross_entropy(
        &mut self,
        head: &Head,
        to: Targets,
        rows: Range<usize>,
        parts: &[Range<usize>],
        grad_scale: f32,
    ) -> (Vec<TensorId>, TensorId) {
        let (count, all) = (rows.len(), parts.iter().map(|tokens| tokens.len().div_ceil(BLOCK as usize)).sum());
        let partial = self.temp("softmax.partial", &[count, all, 2], DType::F32);
        let chosen = self.temp("chosen", &[count], DType::F32);
        let softmax = self.temp("softmax", &[count, 3], DType::F32);
        let [n, row, blocks, vocab] = [count, rows.start, all, head.vocab(self)].map(|n| n as u32);
        let (mut logits, mut block) = (Vec::with_capacity(parts.len()), 0);
        for tokens in parts {
            let part = head.part(self, tokens.clone());
            let y = self.logits_of(&part, rows.clone());
            let (cols, first) = (tokens.len() as u32, tokens.start as u32);
            let args = CrossEntropyPartialArgs { rows: n, cols, first, row, block, blocks };
            self.push(&CROSS_ENTROPY_PARTIAL, args, &[to.ids, y, partial, chosen]);
            block += cols.div_ceil(BLOCK);
            logits.push(y);
        }
        let args = CrossEntropyArgs { rows: n, vocab, blocks, row, grad_scale };
        self.push(&CROSS_ENTROPY, args, &[to.ids, partial, chosen, to.losses, softmax]);
        (logits, softmax)
    }

    /// Gradients of one chunk of a part of the head: sets the chunk's rows of dx, or adds to them if beta is 1, and adds to the
    /// gradient dw of the part's weight.
    fn head_backward(
        &mut self,
        part: &Head,
        start: usize,
        dlogits: TensorId,
        (dx, beta): (TensorId, f32),
        dw: TensorId,
    ) {
        let (rows, vocab) = self.matrix(dlogits);
        let dim = self.matrix(dx).1;
        let (m, n, k) = (rows as u32, vocab as u32, dim as u32);
        let (offset, fast) = ((start * dim) as u32, self.fast());
        match *part {
            Head::Dense { x, weight, .. } => {
                let args = MatmulArgs { m, n: k, k: n, d_offset: offset, beta, fast, ..MatmulArgs::default() };
                self.push(&MATMUL, args, &[dlogits, weight, dx]);
                let transposed = MatmulArgs { m: n, n: k, k: m, a_transposed: 1, b_offset: offset, beta: 1.0, ..args };
                self.push(&MATMUL, MatmulArgs { d_offset: 0, ..transposed }, &[dlogits, x, dw]);
            }
            Head::Ternary { x, weight, .. } => {
                let (rows, outs, dim, x_row) = (m, weight.outs, k, start as u32);
                let (group, [first, second]) = (weight.group, [0; 2]);
                let args = TernaryMatmulBackwardInputArgs { rows, outs, dim, group, x_row, beta, first, second, fast };
                self.push(&TERNARY_MATMUL_BACKWARD_INPUT, args, &[dlogits, weight.codes, weight.scales, dx]);
                let args = TernaryMatmulBackwardWeightArgs { rows, outs, dim, x_row, fast };
                self.push(&TERNARY_MATMUL_BACKWARD_WEIGHT, args, &[dlogits, x.codes, x.step, dw]);
            }
            Head::Int8 { .. } => unreachable!("an int8 head is not trained"),
        }
    }

    /// y = beta * y + scale * (sum of x), in f32, for the first element y of `y`.
    pub fn sum(&mut self, x: TensorId, scale: f32, beta: f32, y: TensorId) {
        let n = self.tensor(x).elements() as u32;
        self.push(&SUM, SumArgs { n, scale, beta }, &[x, y]);
    }
}
