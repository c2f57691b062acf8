//! The cases of each op: odd sizes, a single row, masked targets, small real sizes, offsets, beta 0 (over poison) and 1.

use cpu_kernels::Args;
use cpu_kernels::ops::*;
use nanotern::graph::Op;
use nanotern::graph::{Graph, TensorId};
use nanotern::ops::{self, rope_table};
use nanotern::rng::Rng;

/// The contents of a tensor before the op.
#[derive(Clone)]
pub enum Data {
    F32(Vec<f32>),
    U32(Vec<u32>),
    /// int8, packed codes, or f16.
    Bytes(Vec<u8>),
    /// Poison, with a size in bytes.
    Out(usize),
    /// The same tensor as that of an earlier binding.
    Same(usize),
}

/// Appends the op to a graph, with tensors in the order of its bindings.
pub type Push = Box<dyn Fn(&mut Graph, &[TensorId])>;

pub struct Case {
    pub op: &'static Op,
    pub args: String,
    pub push: Push,
    pub data: Vec<Data>,
    /// The largest allowed normalised mean squared error of floats.
    pub limit: f64,
    /// Whether a byte, given as (index, reference, result), may differ on a GPU.
    pub near_tie: Box<dyn Fn(usize, i8, i8) -> bool>,
}

/// A case whose random data depends on its op and `args` only, not on other cases.
fn case<A: Args + std::fmt::Debug>(op: &'static Op, args: A, data: impl FnOnce(&mut Rng) -> Vec<Data>) -> Case {
    let text = format!("{args:?}");
    let seed = crc32c::crc32c(format!("{} {text}", op.name).as_bytes());
    let data = data(&mut Rng::new(u64::from(seed)));
    assert_eq!(data.len(), op.bindings.len(), "{}", op.name);
    let push = Box::new(move |g: &mut Graph, tensors: &[TensorId]| g.push(op, args, tensors));
    Case { op, args: text, push, data, limit: 1e-7, near_tie: Box::new(|_, _, _| false) }
}

/// A case whose result is defined bit for bit.
fn exact(case: Case) -> Case {
    Case { limit: 0.0, ..case }
}

/// A case of a product of f32: the limit tells apart factors that were rounded to f16, which differ by 1e-8, and sums in another
/// order.
fn close(case: Case) -> Case {
    Case { limit: 1e-12, ..case }
}

fn out(elements: u32) -> Data {
    Data::Out(4 * elements as usize)
}

/// The target of an op with a `beta`: random values if `beta` is not 0, otherwise poison.
fn target(r: &mut Rng, beta: f32, elements: u32) -> Data {
    if beta == 0.0 { out(elements) } else { normal(r, elements, 1.0) }
}

fn values(r: &mut Rng, n: u32, scale: f32) -> Vec<f32> {
    (0..n).map(|_| scale * r.normal()).collect()
}

fn normal(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::F32(values(r, n, scale))
}

/// f16 values.
fn halves(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::Bytes(values(r, n, scale).into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect())
}

fn uniform(r: &mut Rng, n: u32, low: f32, high: f32) -> Data {
    Data::F32((0..n).map(|_| low + (high - low) * r.f32()).collect())
}

fn below(r: &mut Rng, n: u32, limit: u32) -> Vec<u32> {
    (0..n).map(|_| r.below(u64::from(limit)) as u32).collect()
}

/// int8 activations in -127..=127.
fn activations(r: &mut Rng, n: u32) -> Data {
    Data::Bytes((0..n).map(|_| (r.below(255) as i16 - 127) as i8 as u8).collect())
}

/// Packed codes of (outs, dim) ternary weights.
fn codes(r: &mut Rng, outs: u32, dim: u32) -> Data {
    let byte = |r: &mut Rng| (0..4).fold(0, |byte, i| byte | (r.below(3) as u8) << (2 * i));
    Data::Bytes((0..outs as usize * ops::packed_row_bytes(dim as usize)).map(|_| byte(r)).collect())
}

pub fn all() -> Vec<Case> {
    let families = [
        embedding,
        norms,
        quantizers,
        ternary,
        grouped,
        experts,
        matmuls,
        attention,
        delta,
        elementwise,
        streams,
        losses,
        optimizers,
        inference,
    ];
    families.iter().flat_map(|family| family()).collect()
}

/// Whole tables and parts of them. Ids beyond the table too: just behind it, and those whose place in it is that of another when
/// it wraps at 2^32. And one id in most rows, in runs that end at the blocks of the gradient or between them.
fn embedding() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, vocab, first) in
        [(1, 1, 1, 0), (5, 7, 3, 0), (33, 96, 40, 0), (64, 256, 16, 0), (33, 96, 20, 10), (300, 70, 20, 30)]
    {
        let args = embedding::EmbeddingArgs { rows, dim, first };
        let ids = |r: &mut Rng| below(r, rows, vocab + 2 * first);
        let data = |r: &mut Rng| vec![Data::U32(ids(r)), normal(r, vocab * dim, 0.02), normal(r, rows * dim, 1.0)];
        cases.push(exact(case(&ops::EMBEDDING, args, data)));
        let data = |r: &mut Rng| vec![Data::U32(ids(r)), halves(r, vocab * dim, 0.02), normal(r, rows * dim, 1.0)];
        cases.push(exact(case(&ops::EMBEDDING_F16, args, data)));
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first };
        let data = |r: &mut Rng| {
            let (ids, dy) = (ids(r), normal(r, rows * dim, 1.0));
            vec![Data::U32(ids.clone()), sorted(&ids), dy, normal(r, vocab * dim, 1.0)]
        };
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
    }
    for runs in [&[400][..], &[32, 64, 33, 1, 30], &[31, 1, 65, 32, 200], &[1, 96, 95, 64], &[20, 20, 500, 3]] {
        let ids: Vec<u32> = runs.iter().zip(0..).flat_map(|(n, id)| vec![id; *n]).collect();
        let (rows, dim) = (ids.len() as u32, 70);
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first: 0 };
        let data = |r: &mut Rng| {
            vec![Data::U32(ids.clone()), sorted(&ids), normal(r, rows * dim, 1.0), normal(r, 5 * dim, 1.0)]
        };
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
    }
    let (rows, dim, vocab) = (8, 64, 10);
    let ids = || Data::U32(vec![3, 10, 1 << 26, 9, 67_108_867, u32::MAX, 0, 3]);
    let args = embedding::EmbeddingArgs { rows, dim, first: 0 };
    cases.push(exact(case(&ops::EMBEDDING, args, |r| vec![ids(), normal(r, vocab * dim, 0.02), out(rows * dim)])));
    cases.push(exact(case(&ops::EMBEDDING_F16, args, |r| vec![ids(), halves(r, vocab * dim, 0.02), out(rows * dim)])));
    // Every finite f16 value, also those that are not normal.
    let (rows, dim) = (2 * 31, 1024);
    let finite = (0..=u16::MAX).filter(|bits| half::f16::from_bits(*bits).is_finite());
    let table = Data::Bytes(finite.flat_map(u16::to_le_bytes).collect());
    let args = embedding::EmbeddingArgs { rows, dim, first: 0 };
    let data = |_: &mut Rng| vec![Data::U32((0..rows).collect()), table, out(rows * dim)];
    cases.push(exact(case(&ops::EMBEDDING_F16, args, data)));
    let (rows, dim) = (8, 64);
    for first in [0, 1, 3] {
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first };
        let order = Data::U32(vec![6, 0, 7, 3, 1, 4, 8, u32::MAX]);
        let data = |r: &mut Rng| vec![ids(), order, normal(r, rows * dim, 1.0), normal(r, vocab * dim, 1.0)];
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
        let args = embedding_int8::EmbeddingInt8Args { rows, dim, first };
        let data = |r: &mut Rng| {
            let (codes, scales) = (activations(r, vocab * dim), uniform(r, vocab * dim / 32, 0.001, 0.1));
            vec![ids(), codes, scales, if first == 0 { out(rows * dim) } else { normal(r, rows * dim, 1.0) }]
        };
        cases.push(exact(case(&ops::EMBEDDING_INT8, args, data)));
    }
    cases
}

/// The rows sorted by id, equal ids in order.
fn sorted(ids: &[u32]) -> Data {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|row| ids[*row as usize]);
    Data::U32(order)
}

fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim) in [(1, 1), (1, 7), (3, 63), (5, 64), (2, 256), (130, 65), (7, 768)] {
        let args = rms_norm::RmsNormArgs { rows, dim, eps: 1e-5 };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, 1.5), normal(r, dim, 1.0), out(rows * dim), out(rows)];
        cases.push(case(&ops::RMS_NORM, args, data));
        for beta in [0.0, 1.0] {
            let args = rms_norm_backward::RmsNormBackwardArgs { rows, dim, beta };
            let data = |r: &mut Rng| {
                let [x, w] = [normal(r, rows * dim, 1.5), normal(r, dim, 1.0)];
                let [rstd, dy] = [uniform(r, rows, 0.5, 2.0), normal(r, rows * dim, 1.0)];
                vec![x, w, rstd, dy, target(r, beta, rows * dim), normal(r, dim, 1.0)]
            };
            cases.push(case(&ops::RMS_NORM_BACKWARD, args, data));
        }
    }
    // The squares of some rows overflow.
    let (rows, dim) = (4, 96);
    let data = |r: &mut Rng| {
        let mut x = values(r, rows * dim, 1.0);
        x.chunks_mut(dim as usize).step_by(2).for_each(|row| row.iter_mut().for_each(|x| *x *= 1e30));
        vec![Data::F32(x), normal(r, dim, 1.0), out(rows * dim), out(rows)]
    };
    cases.push(case(&ops::RMS_NORM, rms_norm::RmsNormArgs { rows, dim, eps: 1e-5 }, data));
    for (rows, cols, offset, beta) in [(1, 1, 0, 0.0), (9, 130, 0, 1.0), (3, 20, 4, 0.0), (70, 64, 3, 1.0)] {
        let args = sum_rows::SumRowsArgs { rows, cols, offset, beta };
        let data = |r: &mut Rng| vec![normal(r, rows * cols, 1.0), target(r, beta, offset + cols + 2)];
        cases.push(case(&ops::SUM_ROWS, args, data));
    }
    cases
}

/// A case whose codes are those of `values(row, second tensor)`. A GPU's division may be off by 2.5 ulp, which moves a code by one
/// if value / step is that close to a tie.
fn quantized(case: Case, dim: usize, values: impl Fn(&[f32], &[f32]) -> Vec<f32>) -> Case {
    let floats = |i: usize| if let Data::F32(x) = &case.data[i] { &x[..] } else { &[] };
    let x: Vec<f32> = floats(0).chunks(dim).flat_map(|row| values(row, floats(1))).collect();
    let near_tie = move |at: usize, a: i8, b: i8| {
        let row = &x[at / dim * dim..][..dim];
        let step = row.iter().fold(1e-8f32, |m, v| m.max(v.abs())) / 127.0;
        let tie = ((x[at] / step).abs().fract() - 0.5).abs();
        a.abs_diff(b) == 1 && tie < 1e-3
    };
    Case { near_tie: Box::new(near_tie), ..case }
}

fn quantizers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, scale) in [(1, 4, 1.0), (3, 32, 100.0), (5, 260, 1e-3), (2, 256, 0.0), (9, 768, 1.0)] {
        let args = quantize_rows::QuantizeRowsArgs { rows, dim };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, scale), Data::Out((rows * dim) as usize), out(rows)];
        cases.push(quantized(case(&ops::QUANTIZE_ROWS, args, data), dim as usize, |row, _| row.to_vec()));
        let args = rms_norm_quantize::RmsNormQuantizeArgs { rows, dim, eps: 1e-5 };
        let data = |r: &mut Rng| {
            let [x, w, codes] = [normal(r, rows * dim, scale), normal(r, dim, 1.0), Data::Out((rows * dim) as usize)];
            vec![x, w, codes, out(rows), out(rows)]
        };
        let normed = |row: &[f32], w: &[f32]| {
            let rstd = (row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32 + 1e-5).sqrt().recip();
            row.iter().zip(w).map(|(x, w)| x * rstd * w).collect()
        };
        cases.push(quantized(case(&ops::RMS_NORM_QUANTIZE, args, data), dim as usize, normed));
    }
    // Rows with a value that is not finite.
    let (rows, dim) = (5u32, 260u32);
    let data = |r: &mut Rng| {
        let mut x = values(r, rows * dim, 1.0);
        for (row, at, value) in [(0, 3, f32::NAN), (1, 259, f32::INFINITY), (3, 128, f32::NEG_INFINITY)] {
            x[row * dim as usize + at] = value;
        }
        vec![Data::F32(x), Data::Out((rows * dim) as usize), out(rows)]
    };
    cases.push(case(&ops::QUANTIZE_ROWS, quantize_rows::QuantizeRowsArgs { rows, dim }, data));
    // Rows with a value that is not finite, and with squares that overflow. Others are of one size, far from ties.
    let data = |r: &mut Rng| {
        let mut x = vec![1.0; (rows * dim) as usize];
        for (row, at, value) in [(0, 3, f32::NAN), (1, 259, f32::INFINITY), (3, 128, 1e30)] {
            x[row * dim as usize + at] = value;
        }
        vec![Data::F32(x), uniform(r, dim, 1.0, 1.0), Data::Out((rows * dim) as usize), out(rows), out(rows)]
    };
    let args = rms_norm_quantize::RmsNormQuantizeArgs { rows, dim, eps: 1e-5 };
    cases.push(case(&ops::RMS_NORM_QUANTIZE, args, data));
    for (rows, dim, group, scale) in [
        (1, 32, 32, 0.02),
        (3, 96, 32, 0.02),
        (3, 192, 96, 0.02),
        (2, 1600, 160, 0.02),
        (2, 1984, 992, 0.02),
        (2, 64, 64, 30.0),
        (5, 128, 128, 1e-5),
        (4, 384, 128, 0.02),
        (3, 768, 256, 0.02),
        (2, 1088, 64, 0.05),
        (2, 2048, 1024, 0.02),
        (1, 2048, 512, 0.02),
        (64, 256, 128, 0.06),
        (3, 1280, 128, 1e5),
    ] {
        let args = ternary_quantize::TernaryQuantizeArgs { rows, dim, group };
        let bytes = rows as usize * ops::packed_row_bytes(dim as usize);
        let data = |r: &mut Rng| vec![normal(r, rows * dim, scale), Data::Out(bytes), out(rows * (dim / group))];
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
    }
    // Groups with a value that is not finite, or with a sum that is not, beside good ones.
    for (at, value) in [(0, f32::NAN), (159, f32::INFINITY), (200, f32::NEG_INFINITY), (255, f32::MAX)] {
        for group in [32, 64, 128] {
            let args = ternary_quantize::TernaryQuantizeArgs { rows: 2, dim: 128, group };
            let data = |r: &mut Rng| {
                let mut w: Vec<f32> = (0..256).map(|_| r.normal()).collect();
                (w[at], w[(at + 1) % 32 + at / 32 * 32]) = (value, value);
                vec![Data::F32(w), Data::Out(64), out(256 / group)]
            };
            cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
        }
    }
    // Means halfway between two f16 values, means below the smallest scale, and weights on the threshold.
    let halfway = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e-9, 0.0];
    let w = halfway.iter().flat_map(|v| (0..32).map(move |i| if i % 2 == 0 { *v } else { -*v })).collect();
    let threshold = (0..128).map(|i| [0.5, -0.5, 1.0, -2.0][i % 4]).collect();
    for (w, group) in [(w, 32), (threshold, 128)] {
        let args = ternary_quantize::TernaryQuantizeArgs { rows: 1, dim: 128, group };
        let data = |_: &mut Rng| vec![Data::F32(w), Data::Out(32), out(128 / group)];
        cases.push(exact(case(&ops::TERNARY_QUANTIZE, args, data)));
    }
    cases
}

fn ternary() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, outs, dim, group, x_row) in [
        (1, 1, 32, 32, 0),
        (1, 70, 256, 128, 0),
        (2, 33, 160, 32, 1),
        (4, 96, 512, 256, 3),
        (8, 5, 384, 128, 0),
        (7, 20, 1184, 32, 1),
        (33, 40, 192, 96, 2),
        (65, 130, 256, 128, 0),
        (3, 64, 2048, 1024, 0),
        (17, 256, 768, 256, 5),
        // In parts of k, and in large tiles.
        (300, 70, 160, 32, 2),
        (384, 2048, 1408, 128, 1),
        (2048, 384, 1408, 128, 0),
        (130, 140, 384, 128, 1),
        (9, 129, 192, 64, 0),
        (40, 70, 128, 128, 0),
    ] {
        // Gradients beyond the range of f16 in some cases.
        let size = match rows {
            33 => 1e12,
            40 => 1e-12,
            _ => 1.0,
        };
        let have = x_row + rows + 1;
        // Exact in f16, as scales are.
        let scale = |r: &mut Rng| half::f16::from_f32(0.001 + 0.1 * r.f32()).to_f32();
        let scales = |r: &mut Rng| Data::F32((0..outs * (dim / group)).map(|_| scale(r)).collect());
        let args = ternary_matmul::TernaryMatmulArgs { rows, outs, dim, group, x_row };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, have * dim), uniform(r, have, 0.01, 0.03)];
            vec![xq, step, codes(r, outs, dim), scales(r), out(rows * outs)]
        };
        cases.push(case(&ops::TERNARY_MATMUL, args, data));
        for (beta, fast) in [(0.0, 0), (1.0, 0), (0.0, 1)].into_iter().filter(|(_, fast)| *fast == 0 || rows < 2048) {
            use ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs as A;
            // Outputs of two matrices, where there are as many.
            let args = A { rows, outs, dim, group, x_row, beta, first: 0, second: outs / 3, fast };
            let data = |r: &mut Rng| {
                vec![normal(r, rows * outs, size), codes(r, outs, dim), scales(r), target(r, beta, have * dim)]
            };
            cases.push(close(case(&ops::TERNARY_MATMUL_BACKWARD_INPUT, args, data)));
        }
        for fast in 0..2 {
            use ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs as A;
            let args = A { rows, outs, dim, x_row, fast };
            let data = |r: &mut Rng| {
                let [dy, xq] = [normal(r, rows * outs, size), activations(r, have * dim)];
                vec![dy, xq, uniform(r, have, 0.01, 0.03), normal(r, outs * dim, size)]
            };
            cases.push(close(case(&ops::TERNARY_MATMUL_BACKWARD_WEIGHT, args, data)));
        }
    }
    cases
}

/// Where the rows of each expert begin, if these have so many.
fn starts(counts: &[u32]) -> Data {
    let sums = counts.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    });
    Data::U32(std::iter::once(0).chain(sums).collect())
}

/// Experts with many rows, few rows, and none.
fn grouped() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [(&[u32], u32, u32, u32); 8] = [
        (&[1], 8, 32, 32),
        (&[0, 1, 0, 1], 33, 160, 32),
        (&[3, 0, 5], 70, 256, 128),
        (&[0, 9, 40, 1, 0], 40, 192, 96),
        (&[70, 0, 65, 130], 130, 128, 64),
        (&[33, 32, 31, 0], 64, 384, 128),
        (&[5, 4, 3, 0, 0, 4, 0, 0], 96, 512, 256),
        (&[0, 300, 129], 140, 288, 32),
    ];
    for (counts, outs, dim, group) in shapes {
        let (rows, experts) = (counts.iter().sum::<u32>(), counts.len() as u32);
        let scale = |r: &mut Rng| half::f16::from_f32(0.001 + 0.1 * r.f32()).to_f32();
        let scales = |r: &mut Rng| Data::F32((0..experts * outs * (dim / group)).map(|_| scale(r)).collect());
        let args = grouped_ternary::GroupedTernaryArgs { rows, experts, outs, dim, group };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, rows * dim), uniform(r, rows, 0.01, 0.03)];
            vec![xq, step, starts(counts), codes(r, experts * outs, dim), scales(r), out(rows * outs)]
        };
        cases.push(case(&ops::GROUPED_TERNARY, args, data));
        for (beta, fast) in [(0.0, 0), (1.0, 0), (0.0, 1)] {
            use grouped_ternary_backward_input::GroupedTernaryBackwardInputArgs as A;
            let args = A { rows, experts, outs, dim, group, beta, fast };
            let data = |r: &mut Rng| {
                let (dy, codes) = (normal(r, rows * outs, 1.0), codes(r, experts * outs, dim));
                vec![dy, starts(counts), codes, scales(r), target(r, beta, rows * dim)]
            };
            cases.push(close(case(&ops::GROUPED_TERNARY_BACKWARD_INPUT, args, data)));
        }
        for fast in 0..2 {
            use grouped_ternary_backward_weight::GroupedTernaryBackwardWeightArgs as A;
            let args = A { rows, experts, outs, dim, fast };
            let data = |r: &mut Rng| {
                let [dy, xq] = [normal(r, rows * outs, 1.0), activations(r, rows * dim)];
                vec![dy, xq, uniform(r, rows, 0.01, 0.03), starts(counts), normal(r, experts * outs * dim, 1.0)]
            };
            cases.push(close(case(&ops::GROUPED_TERNARY_BACKWARD_WEIGHT, args, data)));
        }
        // Widths that are no multiple of four too.
        for (dim, kind, fast) in
            [dim, 35].into_iter().flat_map(|dim| (0..3).flat_map(move |k| [(dim, k, 0), (dim, k, 1)]))
        {
            let (weights, wide, narrow) = (experts * outs * dim, rows * dim, rows * outs);
            let beta = if kind == 0 { 0.0 } else { 1.0 };
            let args = grouped_matmul::GroupedMatmulArgs { rows, experts, outs, dim, kind, beta, fast };
            let [a, b, d] = [[wide, weights, narrow], [narrow, weights, wide], [narrow, wide, weights]][kind as usize];
            let data = |r: &mut Rng| {
                let [a, b] = [a, b].map(|n| normal(r, n, 1.0));
                vec![a, b, starts(counts), target(r, beta, d)]
            };
            cases.push(close(case(&ops::GROUPED_MATMUL, args, data)));
        }
    }
    cases
}

/// Each of so many places once.
fn places(r: &mut Rng, n: u32) -> Data {
    let mut places: Vec<u32> = (0..n).collect();
    (1..n as usize).rev().for_each(|i| places.swap(i, r.below(i as u64 + 1) as usize));
    Data::U32(places)
}

fn experts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, experts, k, scale) in [
        (1, 4, 2, 1, 1.0),
        (5, 70, 8, 2, 1.0),
        (33, 256, 16, 4, 0.1),
        (3, 64, 5, 5, 1.0),
        (130, 33, 100, 3, 1.0),
        (4, 32, 8, 3, 0.0),
    ] {
        let n = rows * k;
        let args = moe_route::MoeRouteArgs { rows, dim, experts, k };
        let data = |r: &mut Rng| {
            let [x, w, bias] = [normal(r, rows * dim, scale), normal(r, experts * dim, 0.3), normal(r, experts, scale)];
            vec![x, w, bias, out(rows * experts), out(n), out(n)]
        };
        cases.push(case(&ops::MOE_ROUTE, args, data));
        for beta in [0.0, 1.0] {
            let args = moe_route_backward::MoeRouteBackwardArgs { rows, experts, k, beta };
            let data = |r: &mut Rng| {
                // Different experts for each row.
                let first = below(r, rows, experts);
                let chosen = first.iter().flat_map(|first| (0..k).map(move |j| (first + j) % experts)).collect();
                let [weights, dweights] = [uniform(r, n, 0.0, 1.0), normal(r, n, 1.0)];
                vec![Data::U32(chosen), weights, dweights, target(r, beta, rows * experts)]
            };
            cases.push(case(&ops::MOE_ROUTE_BACKWARD, args, data));
        }
        let args = moe_sort::MoeSortArgs { n, experts };
        let data = |r: &mut Rng| vec![Data::U32(below(r, n, experts)), out(n), out(experts + 1)];
        cases.push(case(&ops::MOE_SORT, args, data));
        let args = moe_dispatch::MoeDispatchArgs { n, dim, k };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, 1.0), places(r, n), out(n * dim)];
        cases.push(exact(case(&ops::MOE_DISPATCH, args, data)));
        for beta in [0.0, 1.0] {
            let args = moe_dispatch_backward::MoeDispatchBackwardArgs { rows, dim, k, beta };
            let data = |r: &mut Rng| vec![normal(r, n * dim, 1.0), places(r, n), target(r, beta, rows * dim)];
            cases.push(case(&ops::MOE_DISPATCH_BACKWARD, args, data));
        }
        let args = moe_combine::MoeCombineArgs { rows, dim, k };
        let data = |r: &mut Rng| vec![normal(r, n * dim, 1.0), places(r, n), uniform(r, n, 0.0, 1.0), out(rows * dim)];
        cases.push(case(&ops::MOE_COMBINE, args, data));
        let args = moe_combine_backward::MoeCombineBackwardArgs { n, dim, k };
        let data = |r: &mut Rng| {
            let [x, places, weights] = [normal(r, n * dim, 1.0), places(r, n), uniform(r, n, 0.0, 1.0)];
            vec![x, places, weights, normal(r, rows * dim, 1.0), out(n * dim), out(n)]
        };
        cases.push(case(&ops::MOE_COMBINE_BACKWARD, args, data));
        let counts = |r: &mut Rng| {
            let mut counts = vec![0; experts as usize];
            below(r, n, experts).iter().for_each(|e| counts[*e as usize] += 1);
            counts
        };
        let args = moe_tally::MoeTallyArgs { experts };
        let data = |r: &mut Rng| vec![starts(&counts(r)), Data::F32(vec![3.0; experts as usize])];
        cases.push(exact(case(&ops::MOE_TALLY, args, data)));
        let args = moe_balance::MoeBalanceArgs { rows, experts };
        let data = |r: &mut Rng| vec![normal(r, rows * experts, 1.0), starts(&counts(r)), out(1)];
        cases.push(case(&ops::MOE_BALANCE, args, data));
        let args = moe_balance_backward::MoeBalanceBackwardArgs { rows, experts };
        let data = |r: &mut Rng| {
            vec![normal(r, rows * experts, 1.0), starts(&counts(r)), Data::F32(vec![0.3]), out(rows * experts)]
        };
        cases.push(case(&ops::MOE_BALANCE_BACKWARD, args, data));
    }
    for (layers, experts, stride, skip) in [(1, 2, 2, 0.0), (3, 8, 64, 0.0), (2, 5, 64, 1.0)] {
        let args = moe_bias::MoeBiasArgs { layers, experts, stride, rate: 0.01 };
        let all = layers * stride;
        let data = |r: &mut Rng| {
            let load = below(r, all, 4).into_iter().map(|n| n as f32).collect();
            vec![Data::F32(load), Data::F32(vec![1.0, skip, 0.0, 0.0]), normal(r, all, 0.1), normal(r, all, 9.0)]
        };
        cases.push(case(&ops::MOE_BIAS, args, data));
    }
    cases
}

fn matmuls() -> Vec<Case> {
    use matmul::MatmulArgs as A;
    let mut cases = Vec::new();
    for (i, [m, n, k]) in [[1, 1, 1], [3, 5, 7], [1, 130, 64], [8, 9, 50], [64, 64, 16], [65, 63, 17], [70, 130, 96]]
        .into_iter()
        .enumerate()
    {
        // Factors beyond the range of f16, too.
        let [left, right] = [[1.0; 2], [1e-20, 1e25]][i % 2];
        let kinds = [(0, 0), (0, 1), (1, 0), (1, 1)];
        for (fast, (a_transposed, b_transposed)) in (0..2).flat_map(|fast| kinds.map(|kind| (fast, kind))) {
            let (batch, beta) = ([1, 3][i % 2], [0.0, 1.0, 0.5][(i + b_transposed as usize) % 3]);
            let (a_offset, b_offset, d_offset) = [(0, 0, 0), (5, 2, 3)][(i + a_transposed as usize) % 2];
            let offsets = A { a_offset, b_offset, d_offset, ..A::default() };
            let args = A { m, n, k, batch, a_transposed, b_transposed, alpha: 0.7, beta, fast, ..offsets };
            let data = |r: &mut Rng, b: fn(&mut Rng, u32, f32) -> Data, right: f32| {
                let [a, b] = [normal(r, a_offset + batch * m * k, left), b(r, b_offset + batch * k * n, right)];
                vec![a, b, target(r, beta, d_offset + batch * m * n + 1)]
            };
            cases.push(close(case(&ops::MATMUL, args, |r| data(r, normal, right))));
            cases.push(case(&ops::MATMUL_F16, args, |r| data(r, halves, 1.0)));
        }
    }
    // Parts of k; large tiles, for which there are enough of them or enough of k.
    for (m, n, k, batch, a_transposed, b_transposed, fast) in [
        (70, 130, 301, 2, 1, 0, 0),
        (70, 130, 301, 2, 1, 0, 1),
        (132, 68, 520, 1, 0, 1, 0),
        (700, 1301, 1030, 1, 0, 0, 0),
        (700, 1301, 1030, 1, 0, 0, 1),
    ] {
        let args = A { m, n, k, batch, a_transposed, b_transposed, alpha: 0.7, beta: 1.0, fast, ..A::default() };
        let data = |r: &mut Rng, b: fn(&mut Rng, u32, f32) -> Data| {
            let [a, b] = [normal(r, batch * m * k, 1.0), b(r, batch * k * n, 1.0)];
            vec![a, b, normal(r, batch * m * n, 1.0)]
        };
        cases.push(close(case(&ops::MATMUL, args, |r| data(r, normal))));
        cases.push(case(&ops::MATMUL_F16, args, |r| data(r, halves)));
    }
    for (m, k, batch) in [(5, 9, 2), (70, 33, 1), (130, 64, 2), (130, 300, 1)] {
        let args = A { m, n: m, k, batch, b_transposed: 1, symmetric: 1, ..A::default() };
        let data = |r: &mut Rng| vec![normal(r, batch * m * k, 1.0), Data::Same(0), out(batch * m * m)];
        cases.push(close(case(&ops::MATMUL, args, data)));
    }
    for (m, n, k, batch, beta) in [
        (1, 1, 1, 1, 1.0),
        (3, 70, 5, 2, -4.775),
        (66, 130, 20, 1, 0.5),
        (66, 130, 200, 1, 0.5),
        (700, 1300, 1030, 1, 0.5),
    ] {
        let args = matmul_add::MatmulAddArgs { m, n, k, batch, symmetric: 0, alpha: 2.0, beta };
        let data = |r: &mut Rng| {
            let [a, b, c] = [m * k, k * n, m * n].map(|n| normal(r, batch * n, 1.0));
            vec![a, b, c, out(batch * m * n)]
        };
        cases.push(close(case(&ops::MATMUL_ADD, args, data)));
    }
    for (m, batch) in [(5, 2), (100, 2), (140, 1)] {
        let args = matmul_add::MatmulAddArgs { m, n: m, k: m, batch, symmetric: 1, alpha: 2.03, beta: -4.8 };
        let data = |r: &mut Rng| {
            let mut x = values(r, batch * m * m, 1.0);
            for (i, row) in (0..batch).flat_map(|b| (0..m).map(move |row| (b * m * m, row))) {
                (0..row).for_each(|col| x[(i + row * m + col) as usize] = x[(i + col * m + row) as usize]);
            }
            vec![Data::F32(x), Data::Same(0), Data::Same(0), out(batch * m * m)]
        };
        cases.push(close(case(&ops::MATMUL_ADD, args, data)));
    }
    cases
}

fn attention() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, heads, head_dim, first, all, sign) in [
        (1, 1, 4, 0, 1, 1.0),
        (5, 3, 20, 0, 3, 1.0),
        (5, 3, 20, 2, 6, 1.0),
        (33, 4, 64, 1, 5, -1.0),
        (7, 2, 128, 0, 2, 1.0),
    ] {
        let args = rope::RopeArgs { rows, heads, head_dim, first, all, sign };
        let data = |r: &mut Rng| {
            let x = normal(r, rows * all * head_dim, 1.0);
            let table = Data::F32(rope_table(50, head_dim as usize, 10_000.0));
            let mut positions = below(r, rows, 50);
            // Beyond the table: behind its end, and where its place wraps at 2^32.
            positions.iter_mut().skip(1).step_by(3).for_each(|p| *p += 70);
            positions.iter_mut().skip(2).step_by(3).for_each(|p| *p += 1 << 31);
            vec![x, Data::U32(positions), table]
        };
        cases.push(case(&ops::ROPE, args, data));
    }
    // Rows of a sequence at which positions start again.
    let documents: [&[u32]; 4] = [&[], &[1], &[3, 4, 16, 20], &[15, 17, 33, 40, 41, 64, 96]];
    let shapes = [
        (1, 1, 1, 1, 4),
        (2, 5, 2, 1, 16),
        (1, 16, 4, 4, 32),
        (2, 33, 4, 1, 64),
        (1, 47, 4, 2, 20),
        (3, 17, 2, 2, 128),
        (1, 100, 2, 1, 64),
        (1, 150, 4, 2, 100),
        (1, 140, 2, 1, 128),
    ];
    for (i, (batch, seq, heads, kv_heads, head_dim)) in shapes.into_iter().cycle().take(4 * shapes.len()).enumerate() {
        let starts = documents[i / shapes.len()];
        // The first document may have started before the sequence, however far.
        let before = [0, 7, u32::MAX - 200][i % 3];
        let position = |row: u32| {
            // Each sequence has its own documents.
            let (t, shift) = (row % seq, row / seq);
            let start = starts.iter().map(|start| start + shift).filter(|start| *start <= t).max();
            start.map_or(t + before, |start| t - start)
        };
        let positions = || Data::U32((0..batch * seq).map(position).collect());
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (q, rows) = (batch * seq * heads * head_dim, batch * heads * seq);
        let qkv = batch * seq * (2 * kv_heads + heads) * head_dim;
        let args = attention::AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale };
        let data = |r: &mut Rng| vec![normal(r, qkv, 1.0), positions(), out(q), out(rows)];
        cases.push(case(&ops::ATTENTION, args, data));
        let args = attention_backward_delta::AttentionBackwardDeltaArgs { batch, seq, heads, head_dim };
        let data = |r: &mut Rng| vec![normal(r, q, 1.0), normal(r, q, 1.0), normal(r, rows, 1.0), out(2 * rows)];
        cases.push(case(&ops::ATTENTION_BACKWARD_DELTA, args, data));
        let inputs = |r: &mut Rng| {
            let stats = (0..2 * rows).map(|i| if i < rows { 2.0 + 2.0 * r.f32() } else { 0.5 * r.normal() }).collect();
            // The columns that the op does not write stay.
            vec![normal(r, qkv, 1.0), normal(r, q, 1.0), Data::F32(stats), positions(), normal(r, qkv, 1.0)]
        };
        let args = attention_backward_q::AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
        cases.push(case(&ops::ATTENTION_BACKWARD_Q, args, inputs));
        let args = attention_backward_kv::AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
        cases.push(case(&ops::ATTENTION_BACKWARD_KV, args, inputs));
    }
    cases
}

/// Positions of `batch` sequences of `seq` rows, of which the second begins with a document that started earlier, and in which
/// documents of some lengths follow each other.
fn documents(batch: u32, seq: u32) -> Vec<u32> {
    let lengths = [5, 40, 1, 2, 70, 3];
    let document = |b: u32| lengths.into_iter().cycle().skip(b as usize).flat_map(|n| 0..n);
    (0..batch).flat_map(|b| document(b).skip(if b == 1 { 3 } else { 0 }).take(seq as usize)).collect()
}

/// Rows of three sequences: one from its start, one that goes on, and a single row; rows without a slot, and one of a slot that is
/// not there.
fn going_on() -> [Vec<u32>; 2] {
    let runs = [(0, 0, 40), (NOWHERE, 0, 2), (2, 7, 35), (9, 3, 2), (1, 2, 1), (NOWHERE, 0, 1)];
    let rows = || runs.into_iter().flat_map(|(slot, first, n)| (first..first + n).map(move |at| (slot, at)));
    [rows().map(|(_, at)| at).collect(), rows().map(|(slot, _)| slot).collect()]
}

fn delta() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, seq, cols, width) in [(1, 1, 3, 2), (2, 9, 20, 4), (3, 70, 65, 3), (2, 130, 33, 8)] {
        let (rows, total) = (batch * seq, cols);
        let positions = || Data::U32(documents(batch, seq));
        let args = short_conv::ShortConvArgs { rows, cols, first: 0, total, width, seq };
        let data = |r: &mut Rng| {
            let [x, w] = [rows * cols, width * cols].map(|n| normal(r, n, 1.0));
            vec![x, w, positions(), Data::Same(2), normal(r, 1, 1.0), out(rows * cols)]
        };
        cases.push(case(&ops::SHORT_CONV, args, data));
        let args = short_conv_backward::ShortConvBackwardArgs { rows, cols, width, seq };
        let data = |r: &mut Rng| {
            let [x, w, dy] = [rows * cols, width * cols, rows * cols].map(|n| normal(r, n, 1.0));
            vec![x, w, positions(), dy, out(rows * cols), normal(r, width * cols, 1.0)]
        };
        cases.push(case(&ops::SHORT_CONV_BACKWARD, args, data));
    }
    let [positions, slots] = going_on();
    let rows = positions.len() as u32;
    let places = || [&positions, &slots].map(|x| Data::U32(x.clone()));
    for (cols, first, total, width) in [(1, 9, 10, 2), (20, 0, 40, 4), (65, 3, 70, 3), (33, 0, 33, 8)] {
        let args = short_conv::ShortConvArgs { rows, cols, first, total, width, seq: 0 };
        let data = |r: &mut Rng| {
            let [x, w] = [rows * cols, width * total].map(|n| normal(r, n, 1.0));
            let [at, slot] = places();
            vec![x, w, at, slot, normal(r, 3 * (width - 1) * total, 1.0), normal(r, rows * total, 1.0)]
        };
        cases.push(case(&ops::SHORT_CONV, args, data));
    }
    for (rows, heads) in [(1, 1), (5, 3), (130, 4), (33, 70)] {
        let n = 2 * rows * heads;
        let data = |r: &mut Rng| vec![normal(r, n, 4.0), normal(r, 2 * heads, 2.0), out(n)];
        cases.push(case(&ops::DELTA_GATES, delta_gates::DeltaGatesArgs { rows, heads }, data));
        let args = delta_gates_backward::DeltaGatesBackwardArgs { rows, heads };
        let data = |r: &mut Rng| {
            let [x, p] = [normal(r, n, 4.0), normal(r, 2 * heads, 2.0)];
            vec![x, p, uniform(r, n, 0.0, 1.0), normal(r, n, 1.0), out(n), normal(r, 2 * heads, 1.0)]
        };
        cases.push(case(&ops::DELTA_GATES_BACKWARD, args, data));
    }
    let gates = |r: &mut Rng, rows: u32, heads: u32| {
        let gate = |i: u32, r: &mut Rng| if i % (2 * heads) < heads { r.f32() } else { -0.3 * r.f32() };
        Data::F32((0..2 * rows * heads).map(|i| gate(i, r)).collect())
    };
    for (batch, seq, heads, key_size, value_size) in [
        (1, 1u32, 1, 4, 4),
        (2, 33, 2, 16, 8),
        (3, 64, 1, 36, 20),
        (1, 100, 3, 8, 76),
        (2, 150, 2, 64, 64),
        (1, 40, 1, 128, 128),
    ] {
        let (rows, cols, size) = (batch * seq, heads * (value_size + 2 * key_size), heads * key_size * value_size);
        let states = batch * seq.div_ceil(32) * size;
        let positions = || Data::U32(documents(batch, seq));
        let args = delta_rule::DeltaRuleArgs { rows, heads, key_size, value_size, seq };
        let data = |r: &mut Rng| {
            let x = normal(r, rows * cols, 1.0);
            vec![x, gates(r, rows, heads), positions(), Data::Same(2), out(states), out(rows * heads * value_size)]
        };
        cases.push(case(&ops::DELTA_RULE, args, data));
        let mut first = 0;
        // Two nodes may share the heads.
        for count in [batch * heads / 2, batch * heads - batch * heads / 2].into_iter().filter(|n| *n > 0) {
            let args =
                delta_rule_backward::DeltaRuleBackwardArgs { rows, heads, key_size, value_size, seq, first, count };
            let data = |r: &mut Rng| {
                let x = normal(r, rows * cols, 1.0);
                let [states, dy] = [states, rows * heads * value_size].map(|n| normal(r, n, 0.5));
                let [dx, dgates] = [rows * cols, 2 * rows * heads].map(|n| normal(r, n, 1.0));
                vec![x, gates(r, rows, heads), positions(), states, dy, dx, dgates]
            };
            cases.push(case(&ops::DELTA_RULE_BACKWARD, args, data));
            first += count;
        }
    }
    for (heads, key_size, value_size) in [(1, 4, 4), (2, 16, 36), (3, 64, 64), (1, 128, 128)] {
        let (cols, size) = (heads * (value_size + 2 * key_size), heads * key_size * value_size);
        let args = delta_rule::DeltaRuleArgs { rows, heads, key_size, value_size, seq: 0 };
        let data = |r: &mut Rng| {
            let [at, slot] = places();
            let (x, gates, state) = (normal(r, rows * cols, 1.0), gates(r, rows, heads), normal(r, 3 * size, 0.5));
            vec![x, gates, at, slot, state, out(rows * heads * value_size)]
        };
        cases.push(case(&ops::DELTA_RULE, args, data));
    }
    cases
}

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [1, 3, 63, 64, 1000, 4097, 4098] {
        let args = swiglu::SwigluArgs { rows: 1, cols: n, stride: n, gate: 0, up: 0 };
        cases.push(case(&ops::SWIGLU, args, |r| vec![normal(r, n, 4.0), normal(r, n, 1.0), out(n)]));
        let data = |r: &mut Rng| vec![normal(r, n, 4.0), normal(r, n, 1.0), normal(r, n, 1.0), out(n), out(n)];
        cases.push(case(&ops::SWIGLU_BACKWARD, swiglu_backward::SwigluBackwardArgs { n }, data));
        let data = |r: &mut Rng| vec![normal(r, n, 1.0), normal(r, n, 1.0), out(n)];
        cases.push(exact(case(&ops::ADD, add::AddArgs { n }, data)));
        cases.push(exact(case(&ops::COPY, copy::CopyArgs { n }, |r| vec![normal(r, n, 1.0), out(n)])));
        cases.push(exact(case(&ops::FILL, fill::FillArgs { n, value: -1.25 }, |_| vec![out(n)])));
    }
    for (rows, cols) in [(1, 1), (3, 7), (2, 64), (65, 20), (5, 130)] {
        let args = swiglu::SwigluArgs { rows, cols, stride: 2 * cols, gate: cols, up: 0 };
        let data = |r: &mut Rng| vec![normal(r, 2 * rows * cols, 4.0), Data::Same(0), out(rows * cols)];
        cases.push(case(&ops::SWIGLU, args, data));
        let args = swiglu_columns_backward::SwigluColumnsBackwardArgs { rows, cols };
        let n = rows * cols;
        let data = |r: &mut Rng| vec![normal(r, 2 * n, 4.0), normal(r, n, 1.0), out(2 * n)];
        cases.push(case(&ops::SWIGLU_COLUMNS_BACKWARD, args, data));
    }
    let edges = vec![0.0, 1.0, 1.0 + 2f32.powi(-11), 65519.0, -70000.0, 2f32.powi(-25), 5e-8, -6.1e-5, 3.3e-6, 0.02];
    let (n, edges) = (edges.len() as u32, Data::F32(edges));
    cases.push(exact(case(&ops::ROUND_F16, round_f16::RoundF16Args { n }, |_| vec![edges, out(n)])));
    let data = |r: &mut Rng| vec![normal(r, 999, 1e-4), out(999)];
    cases.push(exact(case(&ops::ROUND_F16, round_f16::RoundF16Args { n: 999 }, data)));
    // More workgroups than a grid may have in x: the others go to y.
    let n = 4 * 64 * 32_768 + 65;
    cases.push(exact(case(&ops::FILL, fill::FillArgs { n, value: 3.0 }, |_| vec![out(n)])));
    let extremes = vec![-1e4, -100.0, -80.0, 0.0, 80.0, 100.0, 1e4];
    let args = swiglu::SwigluArgs { rows: 1, cols: 7, stride: 7, gate: 0, up: 0 };
    cases.push(case(&ops::SWIGLU, args, |r| vec![Data::F32(extremes.clone()), normal(r, 7, 1.0), out(7)]));
    let args = swiglu_backward::SwigluBackwardArgs { n: 7 };
    let data = |r: &mut Rng| vec![Data::F32(extremes.clone()), normal(r, 7, 1.0), normal(r, 7, 1.0), out(7), out(7)];
    cases.push(case(&ops::SWIGLU_BACKWARD, args, data));
    let args = swiglu_columns_backward::SwigluColumnsBackwardArgs { rows: 1, cols: 7 };
    let data = |r: &mut Rng| {
        let x = [values(r, 7, 1.0), extremes.clone()].concat();
        vec![Data::F32(x), normal(r, 7, 1.0), out(14)]
    };
    cases.push(case(&ops::SWIGLU_COLUMNS_BACKWARD, args, data));
    cases
}

/// h_pre, h_post and H_res for `streams` streams.
fn coef(r: &mut Rng, streams: u32) -> Data {
    uniform(r, streams * (2 + streams), 0.05, 0.95)
}

fn streams() -> Vec<Case> {
    let mut cases = Vec::new();
    for (streams, params) in [(2, 9), (4, 40)] {
        let args = mhc_weights::MhcWeightsArgs { streams };
        cases.push(case(&ops::MHC_WEIGHTS, args, |r| vec![normal(r, params, 2.0), out(streams * (2 + streams))]));
        let args = mhc_weights_backward::MhcWeightsBackwardArgs { streams };
        let data = |r: &mut Rng| {
            let dcoef = normal(r, streams * (2 + streams), 1.0);
            vec![normal(r, params, 2.0), coef(r, streams), dcoef, normal(r, params, 1.0)]
        };
        cases.push(case(&ops::MHC_WEIGHTS_BACKWARD, args, data));
        for n in [4, 68, 5000] {
            let x = |r: &mut Rng| normal(r, n, 1.0);
            let all = |r: &mut Rng| normal(r, n * streams, 1.0);
            let args = mhc_expand::MhcExpandArgs { n, streams, scale: 0.25 };
            cases.push(case(&ops::MHC_EXPAND, args, |r| vec![x(r), out(n * streams)]));
            let args = mhc_collapse::MhcCollapseArgs { n, streams, scale: 0.25 };
            cases.push(case(&ops::MHC_COLLAPSE, args, |r| vec![all(r), out(n)]));
            let args = mhc_pre::MhcPreArgs { n, streams };
            cases.push(case(&ops::MHC_PRE, args, |r| vec![coef(r, streams), all(r), out(n)]));
            for beta in [0.0, 1.0] {
                let args = mhc_pre_backward::MhcPreBackwardArgs { n, streams, beta };
                let data = |r: &mut Rng| vec![coef(r, streams), x(r), target(r, beta, n * streams)];
                cases.push(case(&ops::MHC_PRE_BACKWARD, args, data));
            }
            let blocks = n.div_ceil(4096);
            let args = mhc_pre_backward_coef::MhcPreBackwardCoefArgs { n, streams };
            cases.push(case(&ops::MHC_PRE_BACKWARD_COEF, args, |r| vec![all(r), x(r), out(blocks * streams)]));
            let args = mhc_post::MhcPostArgs { n, streams };
            cases.push(case(&ops::MHC_POST, args, |r| vec![coef(r, streams), all(r), x(r), out(n * streams)]));
            let args = mhc_post_backward::MhcPostBackwardArgs { n, streams };
            let data = |r: &mut Rng| vec![coef(r, streams), all(r), out(n * streams), out(n)];
            cases.push(case(&ops::MHC_POST_BACKWARD, args, data));
            let args = mhc_post_backward_coef::MhcPostBackwardCoefArgs { n, streams };
            let data = |r: &mut Rng| vec![all(r), x(r), all(r), out(blocks * streams * (1 + streams))];
            cases.push(case(&ops::MHC_POST_BACKWARD_COEF, args, data));
        }
    }
    cases
}

fn losses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, cols, first, row, grad_scale) in [
        (1, 1, 0, 0, 1.0),
        (5, 100, 70, 2, 0.25),
        (3, 65, 0, 0, 0.01),
        (4, 4096, 0, 1, 0.01),
        (6, 257, 3, 0, 1.0),
        (3, 9000, 100, 1, 0.5),
    ] {
        let targets = |r: &mut Rng| {
            let mut targets = below(r, row + rows + 1, cols + 2 * first);
            targets[(row + rows / 2) as usize] = if rows > 1 { u32::MAX } else { 0 };
            targets[(row + rows - 1) as usize] = first + cols - 1;
            Data::U32(targets)
        };
        let (mine, blocks) = (cols.div_ceil(4096), cols.div_ceil(4096) + 2);
        let args = cross_entropy_partial::CrossEntropyPartialArgs { rows, cols, first, row, block: 1, blocks };
        let data = |r: &mut Rng| {
            vec![targets(r), normal(r, rows * cols, 3.0), normal(r, 2 * rows * blocks, 1.0), normal(r, rows, 1.0)]
        };
        cases.push(case(&ops::CROSS_ENTROPY_PARTIAL, args, data));
        let args = cross_entropy::CrossEntropyArgs { rows, vocab: first + cols, blocks: mine, row, grad_scale };
        let data = |r: &mut Rng| {
            let partial = uniform(r, 2 * rows * mine, 1.0, 9.0);
            vec![targets(r), partial, normal(r, rows, 3.0), out(row + rows + 1), out(2 * rows)]
        };
        cases.push(case(&ops::CROSS_ENTROPY, args, data));
        let args = cross_entropy_gradient::CrossEntropyGradientArgs { rows, cols, first, row, grad_scale };
        let data = |r: &mut Rng| {
            let mut softmax = values(r, 2 * rows, 2.0);
            softmax[rows as usize / 2 * 2 + 1] = 0.0;
            vec![targets(r), Data::F32(softmax), normal(r, rows * cols, 3.0)]
        };
        cases.push(case(&ops::CROSS_ENTROPY_GRADIENT, args, data));
        let args = join_columns::JoinColumnsArgs { rows, cols, first, stride: first + cols + 1 };
        let data = |r: &mut Rng| vec![normal(r, rows * cols, 1.0), out(rows * (first + cols + 1))];
        cases.push(exact(case(&ops::JOIN_COLUMNS, args, data)));
    }
    for (n, beta) in [(1, 0.0), (63, 1.0), (2000, 0.0), (10_000, 0.5)] {
        let args = sum::SumArgs { n, scale: 0.3, beta };
        cases.push(case(&ops::SUM, args, |r| vec![uniform(r, n, 0.0, 8.0), target(r, beta, 1)]));
    }
    for (n, rows, start, stride, offset, step) in [
        (1, 1, 0, 1, 0, 1),
        (4096, 1, 0, 4096, 0, 1),
        (5000, 1, 7, 5000, 3, 2),
        (4097, 3, 0, 4097, 1, 2),
        (4097, 3, 64, 5000, 1, 5),
        (100, 5, 3, 110, 0, 1),
        (1, 32_770, 0, 1, 0, 1),
    ] {
        let args = sum_squares::SumSquaresArgs { n, rows, start, stride, offset, step, scale: 1.0 };
        let data = |r: &mut Rng| vec![normal(r, start + rows * stride, 0.1), normal(r, offset + rows * step + 1, 1.0)];
        cases.push(case(&ops::SUM_SQUARES, args, data));
    }
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    // A check: 0 for the largest numbers, NaN for what is none, wherever it is in a block.
    for (at, value) in [(0, f32::MAX), (4095, nan), (4096, inf), (8999, -inf), (5000, -f32::MAX), (63, inf)] {
        let args =
            sum_squares::SumSquaresArgs { n: 9000, rows: 1, start: 0, stride: 0, offset: 0, step: 0, scale: 0.0 };
        let data = |r: &mut Rng| {
            let mut x: Vec<f32> = (0..9000).map(|_| r.normal()).collect();
            x[at] = value;
            vec![Data::F32(x), out(3)]
        };
        cases.push(case(&ops::SUM_SQUARES, args, data));
    }
    for (clip, outlier, loss, ctl, norm) in [
        (1.0, 0.0, 3.0, [1.0, 0.0, 0.0, 0.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 0.1, 30.0], 20.0),
        (1.0, 4.0, 3.0, [1.0, 0.0, 0.1, 19.0], 20.0),
        (0.0, 0.0, 3.0, [0.5, 1.0, 0.1, 7.0], 9.0),
        (1.0, 4.0, nan, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, inf, [1.0, 0.0, 2.0, 30.0], 0.5),
        (1.0, 4.0, 3.0, [1.0, 0.0, 2.0, 30.0], inf),
    ] {
        let args = clip::ClipArgs { partials: 100, checks: 0, warmup: 20, clip, outlier };
        let [step, ctl] = [vec![1.0, 0.1, 0.1, 67.0], ctl.to_vec()].map(Data::F32);
        let data =
            |r: &mut Rng| vec![uniform(r, 100, 0.0, norm), Data::F32(vec![loss]), step, ctl, normal(r, 256, 1.0)];
        cases.push(case(&ops::CLIP, args, data));
    }
    // Checks, and the op's own state, that are finite or not.
    for (check, ctl) in [
        (0.0, [1.0, 0.0, 2.0, 30.0]),
        (nan, [1.0, 0.0, 2.0, 30.0]),
        (0.0, [1.0, 0.0, nan, 30.0]),
        (0.0, [1.0, 0.0, 2.0, inf]),
        (0.0, [nan, nan, 2.0, 30.0]),
    ] {
        let args = clip::ClipArgs { partials: 100, checks: 67, warmup: 20, clip: 1.0, outlier: 4.0 };
        let [step, ctl] = [vec![1.0, 0.1, 0.1, 67.0], ctl.to_vec()].map(Data::F32);
        let data = |r: &mut Rng| {
            let mut partial: Vec<f32> = (0..100).map(|_| r.f32()).collect();
            partial.extend((0..67).map(|i| if i == 65 { check } else { 0.0 }));
            vec![Data::F32(partial), Data::F32(vec![3.0]), step, ctl, normal(r, 256, 1.0)]
        };
        cases.push(case(&ops::CLIP, args, data));
    }
    cases
}

fn optimizers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, skip) in [(1, 0.0), (66, 0.0), (67, 0.0), (5000, 0.0), (100, 1.0)] {
        let ctl = || Data::F32(vec![0.7, skip, 1.0, 9.0]);
        let step = || Data::F32(vec![0.5, 0.1, 0.02, 3.0]);
        let (lr, beta1, beta2, weight_decay) = (3e-3, 0.9, 0.95, 0.1);
        let args = adamw::AdamwArgs { n, lr, beta1, beta2, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let [g, w, m, v] = [1.0, 0.5, 0.1, 0.0].map(|scale| normal(r, n, scale));
            let v = if n > 64 { uniform(r, n, 0.0, 0.1) } else { v };
            vec![g, ctl(), step(), w, m, v]
        };
        cases.push(case(&ops::ADAMW, args, data));
        let args = lion::LionArgs { n, lr, beta1, beta2, weight_decay };
        let data = |r: &mut Rng| {
            let [g, w, m] = [1.0, 0.5, 0.1].map(|scale| normal(r, n, scale));
            vec![g, ctl(), step(), w, m]
        };
        cases.push(case(&ops::LION, args, data));
    }
    for (rows, cols, batch, start, apart, offset, transposed, skip) in [
        (1, 1, 1, 0, 0, 0, 0, 0.0),
        (5, 9, 2, 45, 45, 3, 0, 0.0),
        (33, 20, 1, 660, 0, 7, 1, 0.0),
        (64, 32, 2, 0, 0, 0, 1, 1.0),
        (70, 37, 3, 5, 11, 1, 1, 0.0),
        (37, 70, 1, 0, 0, 2, 0, 0.0),
    ] {
        // Matrices of a stack, of which that from `start` on is the first; what lies around them stays.
        let stride = rows * cols + apart;
        let (n, stack, ctl, step) = (
            batch * rows * cols,
            start + batch * stride + 3,
            || Data::F32(vec![0.7, skip, 1.0, 9.0]),
            Data::F32(vec![0.5, 0.1, 0.02, 3.0]),
        );
        let args = muon_momentum::MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, beta: 0.95 };
        let data = |r: &mut Rng| vec![normal(r, stack, 1.0), ctl(), normal(r, stack, 0.1), out(offset + n + 1)];
        cases.push(case(&ops::MUON_MOMENTUM, args, data));
        let (lr, shape, weight_decay) = (0.02, 1.3, 0.1);
        let args = muon_update::MuonUpdateArgs {
            rows,
            cols,
            batch,
            start,
            stride,
            offset,
            transposed,
            lr,
            shape,
            weight_decay,
        };
        let data = |r: &mut Rng| vec![normal(r, offset + n, 0.1), ctl(), step, normal(r, stack, 0.5)];
        cases.push(case(&ops::MUON_UPDATE, args, data));
    }
    cases.extend(states());
    for (n, batch) in [(1, 1), (100, 3), (5000, 2), (4096, 1)] {
        let args = muon_normalize::MuonNormalizeArgs { n, batch };
        let data = |r: &mut Rng| vec![uniform(r, batch * n.div_ceil(4096), 0.1, 9.0), normal(r, batch * n, 1.0)];
        cases.push(case(&ops::MUON_NORMALIZE, args, data));
    }
    cases
}

/// bf16 values.
fn upper_halves(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::Bytes(values(r, n, scale).into_iter().flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect())
}

/// A case of a state that is rounded at random. A GPU's arithmetic may differ by an ulp, which now and then changes what a value is
/// rounded to: codes of one byte may differ by one. Values of bf16 have two bytes, so the case has data with which a GPU's
/// arithmetic is exact.
fn rounded(case: Case) -> Case {
    Case {
        near_tie: Box::new(|_, a, b| a.cast_unsigned().abs_diff(b.cast_unsigned()) == 1 || a.abs_diff(b) == 1),
        ..case
    }
}

/// Multiples of 1/16 within +-2.
fn sixteenths(r: &mut Rng, n: u32) -> Vec<f32> {
    (0..n).map(|_| r.below(65) as f32 / 16.0 - 2.0).collect()
}

/// Optimizers with their state in bf16 and int8.
fn states() -> Vec<Case> {
    let mut cases = Vec::new();
    let step = || Data::F32(vec![0.5, 0.1, 0.02, 3.0, 12_345.0, 54_321.0]);
    let exact_m = |r: &mut Rng, n: u32| {
        Data::Bytes(sixteenths(r, n).iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect())
    };
    for (rows, cols, skip) in [(1u32, 4u32, 0.0), (3, 68, 0.0), (70, 64, 0.0), (5, 200, 1.0), (33, 132, 0.0)] {
        let (n, scales) = (rows * cols, rows * cols.div_ceil(64));
        let ctl = || Data::F32(vec![0.5, skip, 1.0, 9.0]);
        let (stream, lr, weight_decay) = (0xffff_fff0, 3e-3, 0.1);
        let args =
            adamw_bf16::AdamwStateArgs { rows, cols, stream, lr, beta1: 0.75, beta2: 0.75, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w) = (Data::F32(sixteenths(r, n)), normal(r, n, 0.5));
            let squares = sixteenths(r, n).iter().flat_map(|v| half::bf16::from_f32(v * v).to_le_bytes()).collect();
            vec![g, ctl(), step(), w, exact_m(r, n), Data::Bytes(squares)]
        };
        cases.push(case(&ops::ADAMW_BF16, args, data));
        let args =
            adamw_int8::AdamwStateArgs { rows, cols, stream, lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w, m, v) = (normal(r, n, 1.0), normal(r, n, 0.5), activations(r, n), below(r, n, 256));
            let [m_scales, v_scales] = [uniform(r, scales, 0.0, 0.01), uniform(r, scales, 0.0, 0.01)];
            vec![g, ctl(), step(), w, m, m_scales, Data::Bytes(v.iter().map(|v| *v as u8).collect()), v_scales]
        };
        cases.push(rounded(case(&ops::ADAMW_INT8, args, data)));
        let args = lion_bf16::LionStateArgs { rows, cols, stream, lr, beta1: 0.75, beta2: 0.875, weight_decay };
        let data = |r: &mut Rng| vec![Data::F32(sixteenths(r, n)), ctl(), step(), normal(r, n, 0.5), exact_m(r, n)];
        cases.push(case(&ops::LION_BF16, args, data));
        let args = lion_int8::LionStateArgs { rows, cols, stream, lr, beta1: 0.9, beta2: 0.99, weight_decay };
        let data = |r: &mut Rng| {
            let (g, w, m) = (normal(r, n, 1.0), normal(r, n, 0.5), activations(r, n));
            vec![g, ctl(), step(), w, m, uniform(r, scales, 0.0, 0.01)]
        };
        cases.push(rounded(case(&ops::LION_INT8, args, data)));
    }
    // What is not finite shows in the scale of its block, and so does a block of zeros.
    let (rows, cols) = (2, 192);
    let args = lion_int8::LionStateArgs { rows, cols, stream: 0, lr: 1e-3, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
    let data = |_: &mut Rng| {
        let mut g = vec![0.0; 384];
        (g[70], g[200], g[383]) = (f32::NAN, f32::INFINITY, 1e-35);
        let ctl = Data::F32(vec![1.0, 0.0, 1.0, 9.0]);
        let scales = vec![0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0];
        vec![Data::F32(g), ctl, step(), Data::F32(vec![0.0; 384]), Data::Bytes(vec![0; 384]), Data::F32(scales)]
    };
    cases.push(rounded(case(&ops::LION_INT8, args, data)));
    for (rows, cols, batch, start, apart, offset, transposed, skip) in [
        (1u32, 4u32, 1, 0, 0, 0, 0, 0.0),
        (5, 12, 2, 2, 1, 3, 0, 0.0),
        (33, 20, 1, 6, 0, 7, 1, 0.0),
        (64, 32, 2, 0, 0, 0, 1, 1.0),
        (70, 196, 3, 5, 11, 1, 1, 0.0),
        (37, 132, 1, 0, 0, 2, 0, 0.0),
    ] {
        // In rows: where the first matrix begins, and what lies between two.
        let stride = (rows + apart) * cols;
        let (n, stack) = (batch * rows * cols, start * cols + batch * stride);
        let (start, scales) = (start * cols, stack / cols * cols.div_ceil(64));
        let args = |beta| muon_momentum_int8::MuonStateArgs {
            rows,
            cols,
            batch,
            start,
            stride,
            offset,
            transposed,
            stream: 77,
            beta,
        };
        let ctl = || Data::F32(vec![0.5, skip, 1.0, 9.0]);
        let x = || out(offset + n + 1);
        let data = |r: &mut Rng| vec![Data::F32(sixteenths(r, stack)), ctl(), step(), exact_m(r, stack), x()];
        cases.push(case(&ops::MUON_MOMENTUM_BF16, args(0.75), data));
        let data = |r: &mut Rng| {
            let (g, m) = (normal(r, stack, 1.0), activations(r, stack));
            vec![g, ctl(), step(), m, uniform(r, scales, 0.0, 0.01), x()]
        };
        cases.push(rounded(case(&ops::MUON_MOMENTUM_INT8, args(0.95), data)));
    }
    for (n, wrong) in [(1, None), (4097, None), (9000, Some(8191)), (4099, Some(4098)), (5000, Some(0))] {
        let args = finite_bf16::FiniteBf16Args { n, offset: 2 };
        let data = |r: &mut Rng| {
            let Data::Bytes(mut x) = upper_halves(r, n, 1e30) else { unreachable!() };
            // An infinite value, and a finite one next to the end.
            if let Some(at) = wrong {
                x[2 * at..2 * at + 2].copy_from_slice(&0xff80u16.to_le_bytes())
            }
            x.extend(0x7f80u16.to_le_bytes());
            vec![Data::Bytes(x), normal(r, 2 + n.div_ceil(4096), 1.0)]
        };
        cases.push(case(&ops::FINITE_BF16, args, data));
    }
    cases
}

/// The index of no row.
const NOWHERE: u32 = u32::MAX;

fn inference() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, head_dim, slot_pages) in
        [(1, 1, 4, 1), (4, 2, 16, 1), (4, 4, 64, 3), (2, 1, 128, 2), (2, 2, 8, 11)]
    {
        let last = 64 * slot_pages - 1;
        // Consecutive and single rows of three sequences, also over the end of a page, an empty row, a slot and positions beyond
        // the table, a slot whose place wraps at 2^32 to that of slot 1, and sequences whose first or last page is not there.
        let positions = vec![0, 1, 2, 3, last, NOWHERE, 2, 62, 63, 64, 65, 1, last, last + 1, NOWHERE, 2, 1, last];
        let slots = vec![0, 0, 0, 0, 1, NOWHERE, 1, 2, 2, 2, 2, 5, 0, 0, 0, (1 << 31) + 1, 3, 4];
        // Three sequences have pages of their own.
        let held = 3 * slot_pages + 1;
        let mut pages: Vec<u32> = (1..held).rev().collect();
        pages.extend([held].into_iter().chain(0..slot_pages - 1));
        pages.extend((0..slot_pages - 1).chain([NOWHERE]));
        let (rows, dim, kv_dim) = (positions.len() as u32, heads * head_dim, kv_heads * head_dim);
        let append = |transposed| kv_append::KvAppendArgs { rows, kv_heads, head_dim, slot_pages, transposed };
        let len = append(0).cache_len(held as usize) as u32;
        let place = || [&positions, &slots, &pages].map(|x| Data::U32(x.clone()));
        for args in [append(1), append(0)] {
            let [at, slot, pages] = place();
            let data = |r: &mut Rng| vec![normal(r, rows * kv_dim, 1.0), at, slot, pages, normal(r, len, 1.0)];
            cases.push(exact(case(&ops::KV_APPEND, args, data)));
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        // On a GPU, few rows take another way.
        for rows in [rows, 13] {
            let args = attention_cached::AttentionCachedArgs { rows, heads, kv_heads, head_dim, slot_pages, scale };
            let [at, slot, pages] = place();
            let data = |r: &mut Rng| {
                let [q, k, v] = [rows * dim, len, len].map(|n| normal(r, n, 1.0));
                vec![q, k, v, at, slot, pages, out(rows * dim)]
            };
            cases.push(case(&ops::ATTENTION_CACHED, args, data));
        }
    }
    for (rows, outs, dim, x_row) in [(1, 1, 32, 0), (1, 130, 256, 0), (2, 65, 96, 1), (3, 64, 320, 0), (7, 20, 1184, 2)]
    {
        let have = x_row + rows + 1;
        let args = int8_matmul::Int8MatmulArgs { rows, outs, dim, x_row };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, have * dim), uniform(r, have, 0.01, 0.03)];
            let [codes, scales] = [activations(r, outs * dim), uniform(r, outs * dim / 32, 0.001, 0.1)];
            vec![xq, step, codes, scales, out(rows * outs)]
        };
        cases.push(case(&ops::INT8_MATMUL, args, data));
    }
    for dim in [32, 96] {
        let args = embedding_int8::EmbeddingInt8Args { rows: 5, dim, first: 0 };
        let data = |r: &mut Rng| {
            let [ids, codes] = [Data::U32(vec![3, 0, 6, 3, 1]), activations(r, 7 * dim)];
            vec![ids, codes, uniform(r, 7 * dim / 32, 0.001, 0.1), out(5 * dim)]
        };
        cases.push(exact(case(&ops::EMBEDDING_INT8, args, data)));
    }
    for dim in [4, 96] {
        let index = vec![3, NOWHERE, 0, 1 << 27, 6];
        let args = gather_rows::GatherRowsArgs { rows: 5, dim };
        let data = |r: &mut Rng| vec![normal(r, 7 * dim, 1.0), Data::U32(index), out(5 * dim)];
        cases.push(exact(case(&ops::GATHER_ROWS, args, data)));
    }
    let vocab = 150;
    // A slot and an id beyond `seen`, and a slot whose place wraps at 2^32 to that of slot 0.
    let (ids, slots) = (vec![5, 149, 5, 7, 0, 9, 150, 11], vec![0, 1, 0, NOWHERE, 1, 2, 0, 1 << 31]);
    let data = |_: &mut Rng| vec![Data::U32(ids), Data::U32(slots), Data::U32(vec![0; 2 * vocab as usize])];
    cases.push(exact(case(&ops::MARK_SEEN, mark_seen::MarkSeenArgs { rows: 8, vocab }, data)));
    // Logits are far enough apart that rounding does not change the result; their order differs in each row.
    let kinds = [
        (0.0, 0, 1.0, 0.0, 1.0),
        (0.7, 0, 1.0, 0.0, 1.0),
        (1.0, 5, 1.0, 0.0, 1.5),
        (1.3, 0, 0.8, 0.0, 1.0),
        (2.0, 20, 0.9, 0.05, 1.1),
        (1.0, 0, 1.0, 0.3, 1.0),
    ];
    for seed in 0..5 {
        let rows = kinds.len() as u32 + 4;
        let mut params: Vec<u32> = (0u32..)
            .zip(kinds)
            .flat_map(|(slot, (t, top_k, top_p, min_p, penalty))| {
                let row = ops::SampleRow {
                    slot,
                    temperature: t,
                    top_k,
                    top_p,
                    min_p,
                    repetition_penalty: penalty,
                    seed,
                    counter: 3,
                };
                row.words()
            })
            .collect();
        params.extend(ops::SampleRow::NOTHING);
        // The slot of a row before, one beyond the last, and one whose place wraps at 2^32 to that of slot 9.
        for slot in [2, rows, (1 << 31) + 9] {
            params.extend([slot, 1f32.to_bits(), 0, 1f32.to_bits(), 0, 1f32.to_bits(), seed, 3]);
        }
        let data = |r: &mut Rng| {
            // These cases have the same `args`.
            let r = &mut Rng::stream(r.next_u64(), u64::from(seed));
            let mut logits = values(r, rows * vocab, 3.0);
            if seed == 4 {
                for (row, at, value) in [(0, 149, f32::NAN), (1, 0, f32::INFINITY), (4, 70, f32::NEG_INFINITY)] {
                    logits[row * vocab as usize + at] = value;
                }
            }
            vec![
                Data::F32(logits),
                normal(r, rows * vocab, 0.5),
                Data::U32(params),
                Data::U32(below(r, rows * vocab, 2)),
                out(rows),
            ]
        };
        cases.push(exact(case(&ops::SAMPLE, sample::SampleArgs { rows, vocab }, data)));
    }
    // Rounds halve the distance to 2, which shows how many there were.
    for (n, rounds) in [(1, 1), (77, 0), (1000, 1)] {
        let args = probe_fma::ProbeFmaArgs { n, rounds, a: 0.5, b: 1.0 };
        cases.push(case(&ops::PROBE_FMA, args, |_| vec![out(n)]));
    }
    for n in [1, 255, 257, 1000] {
        let args = probe_copy::ProbeCopyArgs { n };
        cases.push(exact(case(&ops::PROBE_COPY, args, |r| vec![normal(r, 4 * n, 1.0), out(4 * n)])));
    }
    cases
}
