//! Normalisation layers.

use super::{QuantRows, RMS_NORM, RMS_NORM_BACKWARD, RMS_NORM_QUANTIZE};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::Args;
use cpu_kernels::ops::rms_norm::RmsNormArgs;
use cpu_kernels::ops::rms_norm_backward::RmsNormBackwardArgs;
use cpu_kernels::ops::rms_norm_quantize::RmsNormQuantizeArgs;

impl Graph {
    /// RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * w for each dim consecutive values of a row of x (rows,
    /// heads * dim), with w (dim) -> like x.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn rms_norm(&mut self, x: TensorId, w: TensorId, eps: f32) -> TensorId {
        let (rows, dim) = self.normed(x, w);
        let shape = self.shape(x).to_vec();
        let y = self.temp("norm", &shape, DType::F32);
        let rstd = self.temp("rstd", &[rows], DType::F32);
        self.push(&RMS_NORM, RmsNormArgs { rows: rows as u32, dim: dim as u32, eps }, &[x, w, y, rstd]);
        y
    }

    /// [`Graph::rms_norm`] of whole rows, quantised to int8 codes.
    ///
    /// # Panics
    /// When the shapes do not match, or dim is not a multiple of 4.
    pub fn rms_norm_quantize(&mut self, x: TensorId, w: TensorId, eps: f32) -> QuantRows {
        let (rows, dim) = self.normed(x, w);
        assert_eq!(self.matrix(x).1, dim, "rms_norm_quantize: {}", self.tensor(x).name);
        let QuantRows { codes, step } = self.quantized(x);
        let rstd = self.temp("rstd", &[rows], DType::F32);
        let args = RmsNormQuantizeArgs { rows: rows as u32, dim: dim as u32, eps };
        self.push(&RMS_NORM_QUANTIZE, args, &[x, w, codes, step, rstd]);
        QuantRows { codes, step }
    }

    /// How often x has the values that w has, and how many these are.
    fn normed(&self, x: TensorId, w: TensorId) -> (usize, usize) {
        let ((rows, cols), dim) = (self.matrix(x), self.tensor(w).elements());
        assert!(cols.is_multiple_of(dim), "rms_norm: weight of {}", self.tensor(x).name);
        (rows * (cols / dim), dim)
    }
}

pub(super) fn rms_norm_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, y, rstd] = node.tensors[..] else { unreachable!("four buffers") };
    gradients(b, node, [x, w, y, rstd]);
}

/// What is quantised has the gradient of its codes.
pub(super) fn rms_norm_quantize_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, codes, _, rstd] = node.tensors[..] else { unreachable!("five buffers") };
    gradients(b, node, [x, w, codes, rstd]);
}

/// One op for both gradients. What is not wanted is written to a temporary.
fn gradients(b: &mut Backward<'_>, node: &Node, [x, w, y, rstd]: [TensorId; 4]) {
    // Both ops begin with these.
    let RmsNormArgs { rows, dim, .. } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    let dw = if b.wants(w) { b.slot(w).0 } else { b.fresh(w) };
    let (dx, beta) = if b.wants(x) { b.slot(x) } else { (b.fresh(x), 0.0) };
    b.push(&RMS_NORM_BACKWARD, RmsNormBackwardArgs { rows, dim, beta }, &[x, w, rstd, dy, dx, dw]);
}
