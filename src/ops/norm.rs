//! Normalisation layers.

use super::{RMS_NORM, RMS_NORM_BACKWARD, RMS_NORM_BACKWARD_WEIGHT, ROW_BLOCK, SUM_ROWS};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::ops::rms_norm::RmsNormArgs;
use cpu_kernels::ops::rms_norm_backward::RmsNormBackwardArgs;
use cpu_kernels::ops::rms_norm_backward_weight::RmsNormBackwardWeightArgs;
use cpu_kernels::{Args, ops::sum_rows::SumRowsArgs};

impl Graph {
    /// RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * w for each row of x (rows, dim), with w (dim) -> like x.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn rms_norm(&mut self, x: TensorId, w: TensorId, eps: f32) -> TensorId {
        let (rows, dim) = self.matrix(x);
        assert_eq!(self.shape(w), [dim], "rms_norm: weight of {}", self.tensor(x).name);
        let shape = self.shape(x).to_vec();
        let y = self.temp("norm", &shape, DType::F32);
        let rstd = self.temp("rstd", &[rows], DType::F32);
        self.push(&RMS_NORM, RmsNormArgs { rows: rows as u32, dim: dim as u32, eps }, &[x, w, y, rstd]);
        y
    }
}

pub(super) fn rms_norm_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, y, rstd] = node.tensors[..] else { unreachable!("four buffers") };
    let RmsNormArgs { rows, dim, .. } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    if b.wants(w) {
        let blocks = rows.div_ceil(ROW_BLOCK);
        let partial = b.graph.temp("partial", &[blocks as usize, dim as usize], DType::F32);
        b.push(&RMS_NORM_BACKWARD_WEIGHT, RmsNormBackwardWeightArgs { rows, dim }, &[x, rstd, dy, partial]);
        let (dw, beta) = b.slot(w);
        b.push(&SUM_ROWS, SumRowsArgs { rows: blocks, cols: dim, offset: 0, beta }, &[partial, dw]);
    }
    if b.wants(x) {
        let (dx, beta) = b.slot(x);
        b.push(&RMS_NORM_BACKWARD, RmsNormBackwardArgs { rows, dim, beta }, &[x, w, rstd, dy, dx]);
    }
}
