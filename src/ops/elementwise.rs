//! Elementwise ops: sums, SwiGLU, rounding, constants, columns side by side.

use super::{ADD, ADD_BIAS, FILL, JOIN_COLUMNS, ROUND_F16, SUM_ROWS, SWIGLU, SWIGLU_BACKWARD, SWIGLU_COLUMNS_BACKWARD};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::{
    Args, ops::add::AddArgs, ops::add_bias::AddBiasArgs, ops::fill::FillArgs, ops::join_columns::JoinColumnsArgs,
    ops::round_f16::RoundF16Args, ops::sum_rows::SumRowsArgs, ops::swiglu::SwigluArgs,
    ops::swiglu_backward::SwigluBackwardArgs, ops::swiglu_columns_backward::SwigluColumnsBackwardArgs,
};
use serde::{Deserialize, Serialize};

/// What a gated unit applies to its gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x / (1 + exp(-x)).
    #[default]
    Silu,
    /// relu(x)^2 (So et al. 2021).
    Relu2,
}

impl Activation {
    /// The argument of the ops.
    fn squared(self) -> u32 {
        u32::from(self == Activation::Relu2)
    }
}

impl Graph {
    /// a + b, f32 of the same shape.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn add_tensors(&mut self, a: TensorId, b: TensorId) -> TensorId {
        let shape = self.shape(a).to_vec();
        assert_eq!(shape, self.shape(b), "add: {} and {}", self.tensor(a).name, self.tensor(b).name);
        let y = self.temp("sum", &shape, DType::F32);
        let n = self.tensor(y).elements() as u32;
        self.push(&ADD, AddArgs { n }, &[a, b, y]);
        y
    }

    /// Adds a bias (cols) to each row of x (rows, cols), in place.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn add_bias(&mut self, x: TensorId, bias: TensorId) {
        let (rows, cols) = self.matrix(x);
        assert_eq!(self.shape(bias), [cols], "add_bias: {}", self.tensor(x).name);
        self.push(&ADD_BIAS, AddBiasArgs { rows: rows as u32, cols: cols as u32 }, &[x, bias]);
    }

    /// The columns of all parts (rows, any), side by side.
    pub fn join_columns(&mut self, parts: &[TensorId]) -> TensorId {
        let rows = self.matrix(parts[0]).0;
        let all = parts.iter().map(|part| self.matrix(*part).1).sum();
        let y = self.temp("joined", &[rows, all], DType::F32);
        let mut first = 0;
        for part in parts {
            self.place_columns(*part, y, first);
            first += self.matrix(*part).1;
        }
        y
    }

    /// Places the columns of x in y, which has as many rows, from column `first` on.
    pub(super) fn place_columns(&mut self, x: TensorId, y: TensorId, first: usize) {
        let ((rows, cols), (_, stride)) = (self.matrix(x), self.matrix(y));
        let [rows, cols, first, stride] = [rows, cols, first, stride].map(|n| n as u32);
        self.push(&JOIN_COLUMNS, JoinColumnsArgs { rows, cols, x_first: 0, x_cols: cols, first, stride }, &[x, y]);
    }

    /// f(gate) * up, f32 of as many elements -> like gate (Shazeer 2020).
    ///
    /// # Panics
    /// When the numbers of elements differ.
    pub fn swiglu(&mut self, gate: TensorId, up: TensorId, f: Activation) -> TensorId {
        let shape = self.shape(gate).to_vec();
        let as_many = self.tensor(gate).elements() == self.tensor(up).elements();
        assert!(as_many, "swiglu: {} and {}", self.tensor(gate).name, self.tensor(up).name);
        let y = self.temp("swiglu", &shape, DType::F32);
        let n = self.tensor(y).elements() as u32;
        let args = SwigluArgs { rows: 1, cols: n, stride: n, gate: 0, up: 0, squared: f.squared() };
        self.push(&SWIGLU, args, &[gate, up, y]);
        y
    }

    /// [`Graph::swiglu`] of x (rows, 2 * dim), whose first columns are up and the others the gate -> (rows, dim).
    pub fn swiglu_columns(&mut self, x: TensorId, f: Activation) -> TensorId {
        let (rows, both) = self.matrix(x);
        let y = self.temp("swiglu", &[rows, both / 2], DType::F32);
        let [rows, stride, cols] = [rows, both, both / 2].map(|n| n as u32);
        let args = SwigluArgs { rows, cols, stride, gate: cols, up: 0, squared: f.squared() };
        self.push(&SWIGLU, args, &[x, x, y]);
        y
    }

    /// Rounds x to f16 values, stored as f32, into y of the same shape. The gradient passes straight through.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn round_f16(&mut self, x: TensorId, y: TensorId) {
        assert_eq!(self.shape(x), self.shape(y), "round_f16: {}", self.tensor(x).name);
        for [x, y] in self.parts_of([x, y]) {
            let n = self.tensor(x).elements() as u32;
            self.push(&ROUND_F16, RoundF16Args { n }, &[x, y]);
        }
    }

    /// Sets every element of `y` to `value`.
    pub fn fill(&mut self, y: TensorId, value: f32) {
        for y in self.parts(y) {
            let n = self.tensor(y).elements() as u32;
            self.push(&FILL, FillArgs { n, value }, &[y]);
        }
    }
}

pub(super) fn add_grad(b: &mut Backward<'_>, node: &Node) {
    let dy = b.grad(node.tensors[2]).expect("an output has a gradient");
    for input in [node.tensors[0], node.tensors[1]] {
        if b.wants(input) {
            b.pass(input, dy);
        }
    }
}

/// x has the gradient of what it becomes.
pub(super) fn add_bias_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, bias] = node.tensors[..] else { unreachable!("two buffers") };
    let AddBiasArgs { rows, cols } = Args::from_words(&node.args);
    let dx = b.grad(x).expect("an output has a gradient");
    if b.wants(bias) {
        let (dbias, beta) = b.slot(bias);
        b.push(&SUM_ROWS, SumRowsArgs { rows, cols, offset: 0, beta }, &[dx, dbias]);
    }
}

/// The columns of the gradient that are those of x.
pub(super) fn join_columns_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, y] = node.tensors[..] else { unreachable!("two buffers") };
    let JoinColumnsArgs { rows, cols, first, stride, .. } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    if b.wants(x) {
        let dx = b.fresh(x);
        b.push(
            &JOIN_COLUMNS,
            JoinColumnsArgs { rows, cols, x_first: first, x_cols: stride, first: 0, stride: cols },
            &[dy, dx],
        );
        b.pass(x, dx);
    }
}

/// Gradient of [`Graph::swiglu`] and [`Graph::swiglu_columns`].
pub(super) fn swiglu_grad(b: &mut Backward<'_>, node: &Node) {
    let [gate, up, y] = node.tensors[..] else { unreachable!("three buffers") };
    let SwigluArgs { rows, cols, squared, .. } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    if gate == up {
        let dx = b.fresh(gate);
        b.push(&SWIGLU_COLUMNS_BACKWARD, SwigluColumnsBackwardArgs { rows, cols, squared }, &[gate, dy, dx]);
        return b.pass(gate, dx);
    }
    let (dgate, dup) = (b.fresh(gate), b.fresh(up));
    b.push(&SWIGLU_BACKWARD, SwigluBackwardArgs { n: rows * cols, squared }, &[gate, up, dy, dgate, dup]);
    b.pass(gate, dgate);
    b.pass(up, dup);
}
