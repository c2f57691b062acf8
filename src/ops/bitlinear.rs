//! Quantised linear layers: int8 activations times ternary weights (BitNet b1.58, Ma et al. 2024), with straight-through
//! gradients, or times an int8 matrix.

use super::{
    INT8_MATMUL, MEAN_SCALE, QUANTIZE_ROWS, TERNARY_MATMUL, TERNARY_MATMUL_BACKWARD_INPUT,
    TERNARY_MATMUL_BACKWARD_WEIGHT, TERNARY_QUANTIZE,
};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::matrix::quantize;
use cpu_kernels::ops::int8_matmul::{GROUP, Int8MatmulArgs};
use cpu_kernels::ops::mean_scale::MeanScaleArgs;
use cpu_kernels::ops::quantize_rows::QuantizeRowsArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;
use cpu_kernels::{Args, ops::ternary_quantize::TernaryQuantizeArgs};
use std::ops::Range;

/// Activations as int8 codes: x is about codes * step.
#[derive(Clone, Copy, Debug)]
pub struct QuantRows {
    /// (rows, dim) int8, in -127..=127.
    pub codes: TensorId,
    /// (rows) f32: one step per row.
    pub step: TensorId,
}

/// A ternary matrix (outs, dim): w is about code * scale, with one scale per `group` consecutive inputs of a row.
#[derive(Clone, Copy, Debug)]
pub struct TernaryWeight {
    /// (outs, [`packed_row_bytes`]) bytes, four codes in each.
    pub codes: TensorId,
    /// (outs, dim / group) f32 whose values are exact in f16, or all the same.
    pub scales: TensorId,
    /// Number of outputs.
    pub outs: u32,
    /// Number of inputs.
    pub dim: u32,
    /// Inputs per scale.
    pub group: u32,
}

/// An int8 matrix (outs, dim): w is about code * scale, with one scale per 32 consecutive inputs of a row.
#[derive(Clone, Copy, Debug)]
pub struct Int8Weight {
    /// (outs, dim) int8.
    pub codes: TensorId,
    /// (outs, dim / 32) f32 whose values are exact in f16.
    pub scales: TensorId,
}

impl TernaryWeight {
    /// Its rows `rows`, as views that only the host uses unless they start at a multiple of 256 bytes.
    pub(crate) fn slice(&self, g: &mut Graph, rows: Range<usize>) -> TernaryWeight {
        let [codes, scales] = [self.codes, self.scales].map(|t| g.slice(t, rows.clone()));
        TernaryWeight { codes, scales, outs: rows.len() as u32, ..*self }
    }

    /// Its rows `rows`, as views.
    pub(super) fn rows(&self, g: &mut Graph, rows: Range<usize>) -> TernaryWeight {
        let [codes, scales] = [self.codes, self.scales].map(|t| g.rows(t, rows.clone()));
        TernaryWeight { codes, scales, outs: rows.len() as u32, ..*self }
    }
}

impl Int8Weight {
    /// Its rows `rows`, as views.
    pub(super) fn rows(&self, g: &mut Graph, rows: Range<usize>) -> Int8Weight {
        let [codes, scales] = [self.codes, self.scales].map(|t| g.rows(t, rows.clone()));
        Int8Weight { codes, scales }
    }
}

/// Most inputs per scale of a ternary matrix: one workgroup sums a group at once.
pub const MAX_GROUP: usize = 1024;

pub use cpu_kernels::matrix::packed_row_bytes;

impl Graph {
    /// Quantises x (rows, dim) to int8 codes.
    ///
    /// # Panics
    /// When dim is not a multiple of 4.
    pub fn quantize_rows(&mut self, x: TensorId) -> QuantRows {
        let ((rows, dim), quantized) = (self.matrix(x), self.quantized(x));
        let QuantRows { codes, step } = quantized;
        self.push(&QUANTIZE_ROWS, QuantizeRowsArgs { rows: rows as u32, dim: dim as u32 }, &[x, codes, step]);
        quantized
    }

    /// Temporaries for the codes of rows like those of x.
    pub(super) fn quantized(&mut self, x: TensorId) -> QuantRows {
        let (rows, dim) = self.matrix(x);
        assert!(dim.is_multiple_of(4), "{} has {dim} columns, not a multiple of 4, to quantise", self.tensor(x).name);
        let codes = self.temp("xq", &[rows, dim], DType::I8);
        QuantRows { codes, step: self.temp("step", &[rows], DType::F32) }
    }

    /// Makes the persistent tensors of a ternary matrix (outs, dim) with one scale per `group` inputs.
    ///
    /// # Panics
    /// When `group` is not a multiple of 32 up to [`MAX_GROUP`] that divides `dim`.
    pub fn ternary_weight(&mut self, name: &str, outs: usize, dim: usize, group: usize) -> TernaryWeight {
        assert!(
            group.is_multiple_of(32) && (32..=MAX_GROUP).contains(&group) && dim.is_multiple_of(group),
            "{name}: {dim} inputs in groups of {group}: a group is a multiple of 32 up to {MAX_GROUP} that divides them"
        );
        let codes = self.persistent(&format!("{name}.codes"), &[outs, packed_row_bytes(dim)], DType::U8);
        let scales = self.persistent(&format!("{name}.scales"), &[outs, dim / group], DType::F32);
        TernaryWeight { codes, scales, outs: outs as u32, dim: dim as u32, group: group as u32 }
    }

    /// Makes the persistent tensors of an int8 matrix (outs, dim).
    ///
    /// # Panics
    /// When dim is not a multiple of 32.
    pub fn int8_weight(&mut self, name: &str, outs: usize, dim: usize) -> Int8Weight {
        assert!(dim.is_multiple_of(GROUP), "{name}: {dim} inputs, not a multiple of {GROUP}");
        let codes = self.persistent(&format!("{name}.codes"), &[outs, dim], DType::I8);
        let scales = self.persistent(&format!("{name}.scales"), &[outs, dim / GROUP], DType::F32);
        Int8Weight { codes, scales }
    }

    /// y = x_hat w^T for the rows `rows` of x -> (rows.len(), outs).
    ///
    /// # Panics
    /// When the shapes do not match or `rows` exceeds x.
    pub fn int8_matmul(&mut self, x: QuantRows, w: &Int8Weight, rows: Range<usize>) -> TensorId {
        let ((have, dim), (outs, w_dim)) = (self.matrix(x.codes), self.matrix(w.codes));
        assert!(dim == w_dim && rows.end <= have, "int8_matmul: {}", self.tensor(w.codes).name);
        let y = self.temp("linear", &[rows.len(), outs], DType::F32);
        let [n, outs, dim, x_row] = [rows.len(), outs, dim, rows.start].map(|n| n as u32);
        let args = Int8MatmulArgs { rows: n, outs, dim, x_row };
        self.push(&INT8_MATMUL, args, &[x.codes, x.step, w.codes, w.scales, y]);
        y
    }

    /// Quantises the latent weight w (outs, dim), f32, into `to`.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn ternary_quantize(&mut self, w: TensorId, to: &TernaryWeight) {
        self.quantize_stage(quantize::BOTH, w, to, to.scales);
    }

    /// Quantises the latent weight w (outs, dim), f32, into `to` with one scale, as BitNet b1.58 does (Ma et al. 2024).
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn ternary_quantize_whole(&mut self, w: TensorId, to: &TernaryWeight) {
        let groups = self.matrix(to.scales);
        let sums = self.temp("sums", &[groups.0, groups.1], DType::F32);
        self.quantize_stage(quantize::SUMS, w, to, sums);
        let n = self.tensor(to.scales).elements() as u32;
        let inverse = 1.0 / self.tensor(w).elements() as f32;
        self.push(&MEAN_SCALE, MeanScaleArgs { n, inverse }, &[sums, to.scales]);
        self.quantize_stage(quantize::CODES, w, to, to.scales);
    }

    fn quantize_stage(&mut self, stage: u32, w: TensorId, to: &TernaryWeight, scales: TensorId) {
        assert_eq!(self.matrix(w), (to.outs as usize, to.dim as usize), "ternary_quantize: {}", self.tensor(w).name);
        for [w, codes, scales] in self.parts_of([w, to.codes, scales]) {
            let args = TernaryQuantizeArgs { rows: self.shape(w)[0] as u32, dim: to.dim, group: to.group, stage };
            self.push(&TERNARY_QUANTIZE, args, &[w, codes, scales]);
        }
    }

    /// y = x_hat w_hat^T for the rows `rows` of x -> (rows.len(), outs).
    ///
    /// # Panics
    /// When the shapes do not match or `rows` exceeds x.
    pub fn ternary_matmul(&mut self, x: QuantRows, w: &TernaryWeight, rows: Range<usize>) -> TensorId {
        let (have, dim) = self.matrix(x.codes);
        assert!(dim == w.dim as usize && rows.end <= have, "ternary_matmul: {}", self.tensor(w.codes).name);
        let y = self.temp("linear", &[rows.len(), w.outs as usize], DType::F32);
        let args = TernaryMatmulArgs {
            rows: rows.len() as u32,
            outs: w.outs,
            dim: w.dim,
            group: w.group,
            x_row: rows.start as u32,
        };
        self.push(&TERNARY_MATMUL, args, &[x.codes, x.step, w.codes, w.scales, y]);
        y
    }
}

pub(super) fn ternary_matmul_grad(b: &mut Backward<'_>, node: &Node) {
    let [xq, step, codes, scales, y] = node.tensors[..] else { unreachable!("five buffers") };
    let dy = b.grad(y).expect("an output has a gradient");
    let fast = b.graph.fast();
    let TernaryMatmulArgs { rows, outs, dim, group, x_row } = Args::from_words(&node.args);
    if b.wants(codes) {
        let (dw, _) = b.slot(codes);
        let args = TernaryMatmulBackwardWeightArgs { rows, outs, dim, x_row, fast };
        b.push(&TERNARY_MATMUL_BACKWARD_WEIGHT, args, &[dy, xq, step, dw]);
    }
    if b.wants(xq) {
        let (dx, beta) = b.slot(xq);
        let [first, second] = b.graph.cuts(codes).map(|row| row as u32);
        let args = TernaryMatmulBackwardInputArgs { rows, outs, dim, group, x_row, beta, first, second, fast };
        b.push(&TERNARY_MATMUL_BACKWARD_INPUT, args, &[dy, codes, scales, dx]);
    }
}
