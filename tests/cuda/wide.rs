//! Cases in which values are far apart: of heavy tails, growing and shrinking along sums, of other sizes in each row.

use crate::cases::{Case, Data};
use cpu_kernels::Args;
use cpu_kernels::ops::*;
use half::f16;
use nanotern::graph::{Graph, Op, TensorId};
use nanotern::ops;
use nanotern::rng::Rng;

fn case<A: Args + std::fmt::Debug>(op: &'static Op, args: A, sizes: &str, data: Vec<Data>) -> Case {
    let push = Box::new(move |g: &mut Graph, tensors: &[TensorId]| g.push(op, args, tensors));
    Case { op, args: format!("{sizes}: {args:?}"), push, data, limit: 1e-7, near_tie: Box::new(|_, _, _| false) }
}

/// How large the values of a row or of a step along a sum are, by its place from 0 to 1.
type Size = fn(f32, &mut Rng) -> f32;

const SIZES: [(&str, Size); 4] = [
    ("heavy tails", |_, r| r.normal().powi(3) * (2.0 * r.normal()).exp()),
    ("growing", |at, _| 1e-25 * 1e3f32.powf(10.0 * at)),
    ("shrinking", |at, _| 1e5 * 1e-3f32.powf(10.0 * at)),
    ("zeros", |_, _| 0.0),
];

/// (rows, cols), with sizes that follow the rows or the columns.
fn matrix(r: &mut Rng, [rows, cols]: [u32; 2], size: Size, along_rows: bool) -> Data {
    let n = if along_rows { rows } else { cols };
    let sizes: Vec<f32> = (0..n).map(|i| size(i as f32 / n as f32, r)).collect();
    let of = |row: u32, col: u32| sizes[if along_rows { row } else { col } as usize];
    Data::F32(
        (0..rows)
            .flat_map(|row| (0..cols).map(move |col| (row, col)))
            .map(|(row, col)| of(row, col) * r.normal())
            .collect(),
    )
}

fn bytes(r: &mut Rng, n: u32, byte: impl Fn(&mut Rng) -> u8) -> Data {
    Data::Bytes((0..n).map(|_| byte(r)).collect())
}

fn out(n: u32) -> Data {
    Data::Out(4 * n as usize)
}

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let r = &mut Rng::new(1);
    let normal: Size = |_, _| 1.0;
    for (name, size) in SIZES {
        let (m, n, k) = (40, 24, 700);
        let layouts = [(0, 0), (1, 0), (0, 1)];
        for ((a_transposed, b_transposed), fast) in layouts.into_iter().flat_map(|of| [(of, 0), (of, 1)]) {
            let args = matmul::MatmulArgs { m, n, k, a_transposed, b_transposed, fast, ..Default::default() };
            for sides in [[size, normal], [normal, size], [size, size]] {
                let a = if a_transposed == 0 { [m, k] } else { [k, m] };
                let b = if b_transposed == 0 { [k, n] } else { [n, k] };
                let a = matrix(r, a, sides[0], a_transposed != 0);
                let b = matrix(r, b, sides[1], b_transposed == 0);
                cases.push(case(&ops::MATMUL, args, name, vec![a, b, out(m * n)]));
            }
        }
        let args = matmul_add::MatmulAddArgs { m, n, k, batch: 1, symmetric: 0, alpha: 1.0, beta: 0.0 };
        let data = vec![matrix(r, [m, k], size, false), matrix(r, [k, n], normal, true), out(m * n), out(m * n)];
        cases.push(case(&ops::MATMUL_ADD, args, name, data));

        let (rows, outs, dim, group) = (40, 700, 96, 32);
        let codes = bytes(r, outs * 32, |r| (0..4).fold(0, |byte, i| byte | (r.below(3) as u8) << (2 * i)));
        let scales = Data::F32((0..outs * dim / group).map(|_| f16::from_f32(0.1 * r.f32()).to_f32()).collect());
        for fast in 0..2 {
            let args = ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs {
                rows,
                outs,
                dim,
                group,
                x_row: 0,
                beta: 0.0,
                first: 0,
                second: 0,
                fast,
            };
            let data = vec![matrix(r, [rows, outs], size, false), codes.clone(), scales.clone(), out(rows * dim)];
            cases.push(case(&ops::TERNARY_MATMUL_BACKWARD_INPUT, args, name, data));
        }

        let (rows, outs, dim) = (700, 40, 96);
        for fast in 0..2 {
            let args =
                ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs { rows, outs, dim, x_row: 0, fast };
            let xq = bytes(r, rows * dim, |r| (r.below(255) as i16 - 127) as i8 as u8);
            let step = Data::F32((0..rows).map(|_| 0.01 * (3.0 * r.normal()).exp()).collect());
            let dw = Data::F32(vec![0.0; (outs * dim) as usize]);
            let data = vec![matrix(r, [rows, outs], size, true), xq, step, dw];
            cases.push(case(&ops::TERNARY_MATMUL_BACKWARD_WEIGHT, args, name, data));
        }
    }
    // An infinite value times 0 and a NaN spoil their row and their column, and nothing else.
    let (m, n, k) = (40, 24, 100);
    let args = matmul::MatmulArgs { m, n, k, b_transposed: 1, ..Default::default() };
    let values = |r: &mut Rng, rows: u32| -> Vec<f32> { (0..rows * k).map(|_| r.normal()).collect() };
    let (mut a, mut b) = (values(r, m), values(r, n));
    a[3 * k as usize + 50] = f32::INFINITY;
    b.chunks_mut(k as usize).for_each(|row| row[50] = 0.0);
    b[5 * k as usize + 70] = f32::NAN;
    cases.push(case(&ops::MATMUL, args, "not finite", vec![Data::F32(a), Data::F32(b), out(m * n)]));
    attention(&mut cases, r);
    cases
}

/// Values and gradients are far apart from row to row. Scores are not: rounding their large ones would change every weight.
fn attention(cases: &mut Vec<Case>, r: &mut Rng) {
    let (batch, seq, heads, kv_heads, head_dim) = (1, 200, 2, 1, 64);
    let [q, kv] = [heads, kv_heads].map(|heads| [seq, heads * head_dim]);
    let row = (2 * kv_heads + heads) * head_dim;
    let scale = 0.125;
    let positions = || Data::U32((0..seq).collect());
    let normal: Size = |_, _| 1.0;
    // Rows of values of this size, keys and queries.
    let qkv = |r: &mut Rng, size| {
        let [v, k, q] = [matrix(r, kv, size, true), matrix(r, kv, normal, true), matrix(r, q, normal, true)].map(f32s);
        let of = |x: &[f32], t: u32| x[t as usize * x.len() / seq as usize..][..x.len() / seq as usize].to_vec();
        Data::F32((0..seq).flat_map(|t| [of(&v, t), of(&k, t), of(&q, t)].concat()).collect())
    };
    for (name, size) in SIZES {
        let args = attention::AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale };
        let data = vec![qkv(r, size), positions(), out(q[0] * q[1]), out(heads * seq)];
        cases.push(case(&ops::ATTENTION, args, name, data));
        let stats = |r: &mut Rng| {
            let n = (heads * seq) as usize;
            Data::F32((0..2 * n).map(|i| if i < n { 4.0 + r.f32() } else { 0.0 }).collect())
        };
        // The columns that an op does not write stay 0.
        let dqkv = || Data::F32(vec![0.0; (seq * row) as usize]);
        let args = attention_backward_q::AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
        let data = vec![qkv(r, size), matrix(r, q, normal, true), stats(r), positions(), dqkv()];
        cases.push(case(&ops::ATTENTION_BACKWARD_Q, args, name, data));
        let args = attention_backward_kv::AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
        let data = vec![qkv(r, normal), matrix(r, q, size, true), stats(r), positions(), dqkv()];
        cases.push(case(&ops::ATTENTION_BACKWARD_KV, args, name, data));
    }
}

fn f32s(data: Data) -> Vec<f32> {
    let Data::F32(values) = data else { unreachable!("a matrix has floats") };
    values
}
