//! The head and the loss, in chunks of rows, so that the logits of a whole batch never exist at once.

use super::bitlinear::{Int8Weight, QuantRows, TernaryWeight};
use super::{CROSS_ENTROPY, MATMUL, SUM, TERNARY_MATMUL_BACKWARD_INPUT, TERNARY_MATMUL_BACKWARD_WEIGHT};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::cross_entropy::CrossEntropyArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::sum::SumArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;

/// The target of a row without loss and gradient.
pub const IGNORE: u32 = u32::MAX;

/// The language-model head: its weight and its input.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    /// An f32 weight: a matrix of its own, or the embedding.
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

impl Head {
    /// (rows, dim): the final hidden state.
    pub fn input(&self) -> TensorId {
        match *self {
            Head::Dense { x, .. } => x,
            Head::Ternary { input, .. } | Head::Int8 { input, .. } => input,
        }
    }
}

impl Graph {
    /// Logits of the rows `rows` -> (rows.len(), vocab).
    pub fn logits(&mut self, head: &Head, rows: std::ops::Range<usize>) -> TensorId {
        let logits = match *head {
            Head::Dense { x, weight, .. } => self.linear(x, weight, rows),
            Head::Ternary { x, weight, .. } => self.ternary_matmul(x, &weight, rows),
            Head::Int8 { x, weight, .. } => self.int8_matmul(x, &weight, rows),
        };
        self.name(logits, "logits")
    }

    /// Cross-entropy of every row, in chunks of `chunk` rows. If `grad_scale` is not 0, also the gradients of
    /// grad_scale * (sum of losses): the weight's is added to the gradient of `latent`, the input's (rows, dim) is returned.
    ///
    /// # Panics
    /// When gradients are requested and the head is int8, or its `latent` has no gradient.
    pub fn head_loss(&mut self, head: &Head, to: Targets, chunk: usize, grad_scale: f32) -> Option<TensorId> {
        let (rows, dim) = self.matrix(head.input());
        let dx = (grad_scale != 0.0).then(|| self.temp("d.hidden", &[rows, dim], DType::F32));
        for start in (0..rows).step_by(chunk) {
            let end = (start + chunk).min(rows);
            let logits = self.logits(head, start..end);
            let vocab = self.matrix(logits).1 as u32;
            let args = CrossEntropyArgs { rows: (end - start) as u32, vocab, row: start as u32, grad_scale };
            self.push(&CROSS_ENTROPY, args, &[to.ids, logits, to.losses]);
            if let Some(dx) = dx {
                self.head_backward(head, start, logits, dx);
            }
        }
        dx
    }

    /// Gradients of one chunk of the head: sets the chunk's rows of dx and adds to the weight's gradient.
    fn head_backward(&mut self, head: &Head, start: usize, dlogits: TensorId, dx: TensorId) {
        let (rows, vocab) = self.matrix(dlogits);
        let dim = self.matrix(dx).1;
        let (m, n, k) = (rows as u32, vocab as u32, dim as u32);
        let offset = (start * dim) as u32;
        match *head {
            Head::Dense { x, weight, latent } => {
                let args = MatmulArgs { m, n: k, k: n, d_offset: offset, ..MatmulArgs::default() };
                self.push(&MATMUL, args, &[dlogits, weight, dx]);
                let dw = latent.and_then(|w| self.gradient(w)).expect("the head's weight has a gradient");
                let transposed = MatmulArgs { m: n, n: k, k: m, a_transposed: 1, b_offset: offset, beta: 1.0, ..args };
                self.push(&MATMUL, MatmulArgs { d_offset: 0, ..transposed }, &[dlogits, x, dw]);
            }
            Head::Ternary { x, weight, latent, .. } => {
                let (rows, outs, dim, x_row) = (m, weight.outs, k, start as u32);
                let args = TernaryMatmulBackwardInputArgs { rows, outs, dim, group: weight.group, x_row, beta: 0.0 };
                self.push(&TERNARY_MATMUL_BACKWARD_INPUT, args, &[dlogits, weight.codes, weight.scales, dx]);
                let dw = latent.and_then(|w| self.gradient(w)).expect("the head's weight has a gradient");
                let args = TernaryMatmulBackwardWeightArgs { rows, outs, dim, x_row };
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
