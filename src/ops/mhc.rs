//! mHC-lite residual streams (arXiv 2512.24880, 2601.05732): `streams` copies of the residual, which each sub-layer reads,
//! mixes and writes with learned coefficients.

use super::{
    BLOCK, MHC_COLLAPSE, MHC_EXPAND, MHC_POST, MHC_POST_BACKWARD, MHC_POST_BACKWARD_COEF, MHC_PRE, MHC_PRE_BACKWARD,
    MHC_PRE_BACKWARD_COEF, MHC_WEIGHTS, MHC_WEIGHTS_BACKWARD, SUM_ROWS,
};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::ops::mhc_collapse::MhcCollapseArgs;
use cpu_kernels::ops::mhc_expand::MhcExpandArgs;
use cpu_kernels::ops::mhc_post::MhcPostArgs;
use cpu_kernels::ops::mhc_post_backward::MhcPostBackwardArgs;
use cpu_kernels::ops::mhc_post_backward_coef::MhcPostBackwardCoefArgs;
use cpu_kernels::ops::mhc_pre::MhcPreArgs;
use cpu_kernels::ops::mhc_pre_backward::MhcPreBackwardArgs;
use cpu_kernels::ops::mhc_pre_backward_coef::MhcPreBackwardCoefArgs;
use cpu_kernels::ops::mhc_weights::MhcWeightsArgs;
use cpu_kernels::ops::mhc_weights_backward::MhcWeightsBackwardArgs;
use cpu_kernels::{Args, ops::sum_rows::SumRowsArgs};

impl Graph {
    /// Coefficients of a sub-layer from its parameters p (9 for two streams, 40 for four): h_pre (streams), h_post (streams)
    /// and the doubly stochastic H_res (streams, streams), concatenated -> (streams * (2 + streams)).
    pub fn mhc_weights(&mut self, p: TensorId, streams: usize) -> TensorId {
        let coef = self.temp("coef", &[streams * (2 + streams)], DType::F32);
        self.push(&MHC_WEIGHTS, MhcWeightsArgs { streams: streams as u32 }, &[p, coef]);
        coef
    }

    /// Copies x (rows, dim) to every stream -> (streams, rows, dim).
    ///
    /// # Panics
    /// When rows * dim is not a multiple of 4.
    pub fn mhc_expand(&mut self, x: TensorId, streams: usize) -> TensorId {
        let (rows, dim) = self.matrix(x);
        assert!((rows * dim).is_multiple_of(4), "mhc_expand: {}", self.tensor(x).name);
        let y = self.temp("streams", &[streams, rows, dim], DType::F32);
        let args = MhcExpandArgs { n: (rows * dim) as u32, streams: streams as u32, scale: 1.0 };
        self.push(&MHC_EXPAND, args, &[x, y]);
        y
    }

    /// The mean of the streams x (streams, rows, dim) -> (rows, dim).
    pub fn mhc_collapse(&mut self, x: TensorId) -> TensorId {
        let (streams, rows, dim) = self.streams(x);
        let y = self.temp("mean", &[rows, dim], DType::F32);
        let args = MhcCollapseArgs { n: (rows * dim) as u32, streams: streams as u32, scale: 1.0 / streams as f32 };
        self.push(&MHC_COLLAPSE, args, &[x, y]);
        y
    }

    /// The input of a sub-layer: sum over i of h_pre_i x_i, for x (streams, rows, dim) -> (rows, dim).
    pub fn mhc_pre(&mut self, coef: TensorId, x: TensorId) -> TensorId {
        let (streams, rows, dim) = self.streams(x);
        let u = self.temp("in", &[rows, dim], DType::F32);
        self.push(&MHC_PRE, MhcPreArgs { n: (rows * dim) as u32, streams: streams as u32 }, &[coef, x, u]);
        u
    }

    /// Mixes the streams x (streams, rows, dim) and adds a sub-layer's output f (rows, dim):
    /// y_i = sum over j of H_res_ij x_j + h_post_i f -> like x.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn mhc_post(&mut self, coef: TensorId, x: TensorId, f: TensorId) -> TensorId {
        let (streams, rows, dim) = self.streams(x);
        assert_eq!(self.shape(f), [rows, dim], "mhc_post: {}", self.tensor(f).name);
        let y = self.temp("streams", &[streams, rows, dim], DType::F32);
        self.push(&MHC_POST, MhcPostArgs { n: (rows * dim) as u32, streams: streams as u32 }, &[coef, x, f, y]);
        y
    }

    fn streams(&self, x: TensorId) -> (usize, usize, usize) {
        let [streams, rows, dim] = self.shape(x)[..] else { panic!("{} is not a set of streams", self.tensor(x).name) };
        (streams, rows, dim)
    }
}

pub(super) fn mhc_weights_grad(b: &mut Backward<'_>, node: &Node) {
    let [p, coef] = node.tensors[..] else { unreachable!("two buffers") };
    let args: MhcWeightsArgs = Args::from_words(&node.args);
    let dcoef = b.grad(coef).expect("an output has a gradient");
    let (dp, _) = b.slot(p);
    b.push(&MHC_WEIGHTS_BACKWARD, MhcWeightsBackwardArgs { streams: args.streams }, &[p, coef, dcoef, dp]);
}

pub(super) fn mhc_expand_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, y] = node.tensors[..] else { unreachable!("two buffers") };
    let MhcExpandArgs { n, streams, scale } = Args::from_words(&node.args);
    let (dy, dx) = (b.grad(y).expect("an output has a gradient"), b.fresh(x));
    b.push(&MHC_COLLAPSE, MhcCollapseArgs { n, streams, scale }, &[dy, dx]);
    b.pass(x, dx);
}

pub(super) fn mhc_collapse_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, y] = node.tensors[..] else { unreachable!("two buffers") };
    let MhcCollapseArgs { n, streams, scale } = Args::from_words(&node.args);
    let (dy, dx) = (b.grad(y).expect("an output has a gradient"), b.fresh(x));
    b.push(&MHC_EXPAND, MhcExpandArgs { n, streams, scale }, &[dy, dx]);
    b.pass(x, dx);
}

/// Sets the gradient of h_pre; `mhc_post` of the same sub-layer sets that of the other coefficients.
pub(super) fn mhc_pre_grad(b: &mut Backward<'_>, node: &Node) {
    let [coef, x, u] = node.tensors[..] else { unreachable!("three buffers") };
    let MhcPreArgs { n, streams } = Args::from_words(&node.args);
    let du = b.grad(u).expect("an output has a gradient");
    let blocks = n.div_ceil(BLOCK);
    let partial = b.graph.temp("partial", &[blocks as usize, streams as usize], DType::F32);
    b.push(&MHC_PRE_BACKWARD_COEF, MhcPreBackwardCoefArgs { n, streams }, &[x, du, partial]);
    let (dcoef, _) = b.slot(coef);
    b.push(&SUM_ROWS, SumRowsArgs { rows: blocks, cols: streams, offset: 0, beta: 0.0 }, &[partial, dcoef]);
    let (dx, beta) = b.slot(x);
    b.push(&MHC_PRE_BACKWARD, MhcPreBackwardArgs { n, streams, beta }, &[coef, du, dx]);
}

pub(super) fn mhc_post_grad(b: &mut Backward<'_>, node: &Node) {
    let [coef, x, f, y] = node.tensors[..] else { unreachable!("four buffers") };
    let MhcPostArgs { n, streams } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    let (blocks, cols) = (n.div_ceil(BLOCK), streams * (1 + streams));
    let partial = b.graph.temp("partial", &[blocks as usize, cols as usize], DType::F32);
    b.push(&MHC_POST_BACKWARD_COEF, MhcPostBackwardCoefArgs { n, streams }, &[x, f, dy, partial]);
    let (dcoef, _) = b.slot(coef);
    b.push(&SUM_ROWS, SumRowsArgs { rows: blocks, cols, offset: streams, beta: 0.0 }, &[partial, dcoef]);
    let (dx, df) = (b.fresh(x), b.fresh(f));
    b.push(&MHC_POST_BACKWARD, MhcPostBackwardArgs { n, streams }, &[coef, dy, dx, df]);
    b.pass(x, dx);
    b.pass(f, df);
}
