//! The ops of a Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024): short convolutions, gates, and the gated delta rule, over whole
//! sequences in training and over what slots remember in decoding.

use super::{
    DELTA_GATES, DELTA_GATES_BACKWARD, DELTA_RULE, DELTA_RULE_BACKWARD, FOLD, Places, SHORT_CONV, SHORT_CONV_BACKWARD,
};
use crate::graph::{Backward, DType, Graph, MAX_BINDING, Node, TensorId};
use cpu_kernels::Args;
use cpu_kernels::ops::delta_gates::DeltaGatesArgs;
use cpu_kernels::ops::delta_gates_backward::DeltaGatesBackwardArgs;
use cpu_kernels::ops::delta_rule::DeltaRuleArgs;
use cpu_kernels::ops::delta_rule_backward::DeltaRuleBackwardArgs;
use cpu_kernels::ops::short_conv::ShortConvArgs;
use cpu_kernels::ops::short_conv_backward::ShortConvBackwardArgs;

/// Largest size of a key and of a value: the limit of a workgroup's memory.
pub const MAX_DELTA_SIZE: usize = cpu_kernels::ops::delta_rule::MOST;
/// Rows of a sequence between two states that training keeps.
pub(super) const CHUNK: u32 = cpu_kernels::ops::delta_rule::CHUNK as u32;

/// Heads of a gated delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaSizes {
    /// Number of heads, each with a state of its own.
    pub heads: usize,
    /// Values of a key and of a query.
    pub key: usize,
    /// Values of a value.
    pub value: usize,
}

impl DeltaSizes {
    /// Columns of values, keys and queries together.
    pub fn cols(&self) -> usize {
        self.heads * (self.value + 2 * self.key)
    }

    /// Values of a row in the widest tensor of training over sequences of `seq` rows: its columns, or its part of a state.
    pub fn widest(&self, seq: usize) -> usize {
        let states = self.heads * self.key * self.value * seq.div_ceil(CHUNK as usize);
        self.cols().max(states.div_ceil(seq))
    }
}

/// What sequences remember in a layer. It does not grow.
#[derive(Clone, Copy, Debug)]
pub struct DeltaState {
    /// (slots, width - 1, columns): the last inputs of the convolution.
    pub tail: TensorId,
    /// (slots, heads, key, value): the states of the rule.
    pub state: TensorId,
}

/// The rows that an op of sequences works on.
#[derive(Clone, Copy, Debug)]
pub enum DeltaRows {
    /// As many sequences of equal length, which start afresh. (rows): the position of each row in its document.
    Batch(usize, TensorId),
    /// Rows that go on with what slots remember.
    Cached(Places, DeltaState),
}

impl DeltaRows {
    fn positions(&self) -> TensorId {
        match self {
            DeltaRows::Batch(_, positions) => *positions,
            DeltaRows::Cached(places, _) => places.positions,
        }
    }
}

impl Graph {
    /// Makes the state of `slots` sequences.
    pub fn delta_state(&mut self, name: &str, slots: usize, sizes: DeltaSizes, width: usize) -> DeltaState {
        let DeltaSizes { heads, key, value } = sizes;
        let tail = self.persistent(&format!("{name}.tail"), &[slots, width - 1, sizes.cols()], DType::F32);
        DeltaState { tail, state: self.persistent(&format!("{name}.state"), &[slots, heads, key, value], DType::F32) }
    }

    /// silu of the causal convolution of each column by itself: x are the columns side by side, each tensor with some of them;
    /// `w` is (width, columns), and the width -> (rows, columns).
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn short_conv(&mut self, x: &[TensorId], (w, width): (TensorId, usize), rows: DeltaRows) -> TensorId {
        let (count, total) = (self.matrix(x[0]).0, self.tensor(w).elements() / width);
        let y = self.temp("conv", &[count, total], DType::F32);
        let positions = rows.positions();
        let (slots, tail, seq) = match rows {
            DeltaRows::Batch(batch, _) => (positions, self.temp("tail", &[1], DType::F32), count / batch),
            DeltaRows::Cached(places, state) => (places.slots, state.tail, 0),
        };
        let mut first = 0;
        for x in x {
            let (rows, cols) = self.matrix(*x);
            assert!(rows == count && first + cols <= total, "short_conv: {}", self.tensor(*x).name);
            let [rows, cols, at, total, width, seq] = [rows, cols, first, total, width, seq].map(|n| n as u32);
            let args = ShortConvArgs { rows, cols, first: at, total, width, seq };
            self.push(&SHORT_CONV, args, &[*x, w, positions, slots, tail, y]);
            first += cols as usize;
        }
        assert_eq!(first, total, "short_conv: columns");
        y
    }

    /// sigmoid of the first half of the columns of x (rows, 2 * heads), and -e^p softplus(x + p') of the second, with p and p' the
    /// halves of p (2 * heads) -> like x: how much a row writes, and the logarithm of what remains of the state.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn delta_gates(&mut self, x: TensorId, p: TensorId) -> TensorId {
        let (rows, both) = self.matrix(x);
        assert!(self.shape(p) == [both] && both.is_multiple_of(2), "delta_gates: {}", self.tensor(x).name);
        let y = self.temp("gates", &[rows, both], DType::F32);
        self.push(&DELTA_GATES, DeltaGatesArgs { rows: rows as u32, heads: both as u32 / 2 }, &[x, p, y]);
        y
    }

    /// The gated delta rule over x (rows, [`DeltaSizes::cols`]): values, keys and queries; gates (rows, 2 * heads) ->
    /// (rows, heads, value).
    ///
    /// # Panics
    /// When the shapes do not match, or sizes are no multiples of 4 up to [`MAX_DELTA_SIZE`].
    pub fn delta_rule(&mut self, x: TensorId, gates: TensorId, sizes: DeltaSizes, rows: DeltaRows) -> TensorId {
        let DeltaSizes { heads, key, value } = sizes;
        let (count, cols) = self.matrix(x);
        let good = [key, value].iter().all(|n| n.is_multiple_of(4) && *n <= MAX_DELTA_SIZE);
        assert!(good && cols == sizes.cols() && self.shape(gates) == [count, 2 * heads], "delta_rule: {sizes:?}");
        let y = self.temp("delta", &[count, heads, value], DType::F32);
        let positions = rows.positions();
        let (slots, state, seq) = match rows {
            DeltaRows::Batch(batch, _) => {
                let seq = count / batch;
                let kept = batch * seq.div_ceil(CHUNK as usize);
                (positions, self.temp("states", &[kept, heads, key, value], DType::F32), seq)
            }
            DeltaRows::Cached(places, state) => (places.slots, state.state, 0),
        };
        let [rows, heads, key_size, value_size, seq] = [count, heads, key, value, seq].map(|n| n as u32);
        let args = DeltaRuleArgs { rows, heads, key_size, value_size, seq };
        self.push(&DELTA_RULE, args, &[x, gates, positions, slots, state, y]);
        y
    }
}

pub(super) fn short_conv_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, positions, _, _, y] = node.tensors[..] else { unreachable!("six buffers") };
    let ShortConvArgs { rows, cols, total, width, seq, .. } = Args::from_words(&node.args);
    assert!(seq > 0 && cols == total, "only whole sequences are differentiated");
    let dy = b.grad(y).expect("an output has a gradient");
    let (dx, (dw, _)) = (b.fresh(x), b.slot(w));
    b.push(&SHORT_CONV_BACKWARD, ShortConvBackwardArgs { rows, cols, width, seq }, &[x, w, positions, dy, dx, dw]);
    b.pass(x, dx);
}

pub(super) fn delta_gates_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, p, y] = node.tensors[..] else { unreachable!("three buffers") };
    let DeltaGatesArgs { rows, heads } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    let (dx, (dp, _)) = (b.fresh(x), b.slot(p));
    b.push(&DELTA_GATES_BACKWARD, DeltaGatesBackwardArgs { rows, heads }, &[x, p, y, dy, dx, dp]);
    b.pass(x, dx);
}

/// As many heads at once as have room in the scratch memory that every device allows.
pub(super) fn delta_rule_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, gates, positions, _, states, y] = node.tensors[..] else { unreachable!("six buffers") };
    let DeltaRuleArgs { rows, heads, key_size, value_size, seq } = Args::from_words(&node.args);
    assert!(seq > 0, "only whole sequences are differentiated");
    let dy = b.grad(y).expect("an output has a gradient");
    let (dx, dgates) = (b.fresh(x), b.fresh(gates));
    let all = DeltaRuleBackwardArgs { rows, heads, key_size, value_size, seq, first: 0, count: rows / seq * heads };
    let fit = (MAX_BINDING as u64 / 4 / all.scratch()).clamp(1, u64::from(FOLD)) as u32;
    for first in (0..all.count).step_by(fit as usize) {
        let args = DeltaRuleBackwardArgs { first, count: fit.min(all.count - first), ..all };
        b.push(&DELTA_RULE_BACKWARD, args, &[x, gates, positions, states, dy, dx, dgates]);
    }
    b.pass(x, dx);
    b.pass(gates, dgates);
}
