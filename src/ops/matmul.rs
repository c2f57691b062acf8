//! f32 matrix products.

use super::{MATMUL, MATMUL_ADD, MATMUL_F16};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::{Args, ops::matmul::MatmulArgs, ops::matmul_add::MatmulAddArgs};
use std::ops::Range;

impl Graph {
    /// y = x w^T for the rows `rows` of x (any, dim), with an f32 or f16 matrix w (outs, dim) -> (rows.len(), outs).
    ///
    /// # Panics
    /// When the shapes do not match or `rows` exceeds x.
    pub fn linear(&mut self, x: TensorId, w: TensorId, rows: Range<usize>) -> TensorId {
        let ((have, dim), (outs, w_dim)) = (self.matrix(x), self.matrix(w));
        assert!(dim == w_dim && rows.end <= have, "linear: {} of {}", self.tensor(w).name, self.tensor(x).name);
        let y = self.temp("linear", &[rows.len(), outs], DType::F32);
        let args = MatmulArgs {
            m: rows.len() as u32,
            n: outs as u32,
            k: dim as u32,
            b_transposed: 1,
            a_offset: (rows.start * dim) as u32,
            ..MatmulArgs::default()
        };
        let op = if self.tensor(w).dtype == DType::F16 { &MATMUL_F16 } else { &MATMUL };
        self.push(op, args, &[x, w, y]);
        y
    }

    /// The symmetric matrix x x^T of each (m, k) matrix of x (batch, m, k) -> (batch, m, m).
    ///
    /// # Panics
    /// When x does not have three dimensions.
    pub(crate) fn gram(&mut self, x: TensorId) -> TensorId {
        let [batch, m, k] = self.shape(x)[..] else {
            panic!("gram: {} is not a batch of matrices", self.tensor(x).name)
        };
        let y = self.temp("gram", &[batch, m, m], DType::F32);
        let args = MatmulArgs {
            m: m as u32,
            n: m as u32,
            k: k as u32,
            batch: batch as u32,
            b_transposed: 1,
            symmetric: 1,
            ..MatmulArgs::default()
        };
        self.push(&MATMUL, args, &[x, x, y]);
        y
    }

    /// alpha a b + beta c for each matrix of a batch: a (batch, m, k), b (batch, k, n), c (batch, m, n) -> like c.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn matmul_add(&mut self, alpha: f32, a: TensorId, b: TensorId, beta: f32, c: TensorId) -> TensorId {
        let (Some([batch, m, k]), Some([_, kb, n])) = (self.shape(a).first_chunk(), self.shape(b).first_chunk()) else {
            panic!("matmul_add: {} and {} are not batches of matrices", self.tensor(a).name, self.tensor(b).name)
        };
        let (batch, m, k, n) = (*batch, *m, *k, *n);
        assert!(k == *kb && self.shape(c) == [batch, m, n], "matmul_add: {}", self.tensor(c).name);
        let y = self.temp("product", &[batch, m, n], DType::F32);
        let symmetric = u32::from(a == b && b == c);
        let args = MatmulAddArgs { m: m as u32, n: n as u32, k: k as u32, batch: batch as u32, symmetric, alpha, beta };
        self.push(&MATMUL_ADD, args, &[a, b, c, y]);
        y
    }
}

/// Gradient of [`Graph::linear`].
pub(super) fn matmul_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, y] = node.tensors[..] else { unreachable!("three buffers") };
    let a: MatmulArgs = Args::from_words(&node.args);
    let linear = a.batch == 1 && a.a_transposed == 0 && a.b_transposed == 1 && a.alpha == 1.0 && a.beta == 0.0;
    assert!(linear, "only x w^T is differentiated");
    let dy = b.grad(y).expect("an output has a gradient");
    let plain = MatmulArgs { fast: b.graph.fast(), ..MatmulArgs::default() };
    if b.wants(w) {
        let (dw, beta) = b.slot(w);
        let args = MatmulArgs { m: a.n, n: a.k, k: a.m, a_transposed: 1, b_offset: a.a_offset, beta, ..plain };
        b.push(&MATMUL, args, &[dy, x, dw]);
    }
    if b.wants(x) {
        let (dx, beta) = b.slot(x);
        let args = MatmulArgs { m: a.m, n: a.k, k: a.n, d_offset: a.a_offset, beta, ..plain };
        b.push(&MATMUL, args, &[dy, w, dx]);
    }
}
