//! Attention and its gradients.

mod common;

use common::*;
use cpu_kernels::ops::*;
use cpu_kernels::{Args, Kernel, Level};
use std::fmt::Debug;

#[derive(Clone, Copy, Debug)]
struct Shape {
    batch: usize,
    seq: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Rows at which documents start, of the first sequence; of each further one they are one row later.
    documents: &'static [usize],
}

impl Shape {
    fn q(self) -> usize {
        self.batch * self.seq * self.heads * self.head_dim
    }

    fn kv(self) -> usize {
        self.batch * self.seq * self.kv_heads * self.head_dim
    }

    fn rows(self) -> usize {
        self.batch * self.heads * self.seq
    }

    /// The first row of the document of row t of sequence b.
    fn start(self, b: usize, t: usize) -> usize {
        self.documents.iter().map(|start| start + b).filter(|start| *start <= t).max().unwrap_or(0)
    }

    fn positions(self) -> Vec<u32> {
        let row = |row: usize| row % self.seq - self.start(row / self.seq, row % self.seq);
        (0..self.batch * self.seq).map(|r| row(r) as u32).collect()
    }

    /// This shape with one document in a sequence, and with several.
    fn cuts(self) -> impl Iterator<Item = Shape> {
        [&[][..], &[1], &[2, 5, 7, 24, 25, 49]].into_iter().map(move |documents| Shape { documents, ..self })
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn args(self) -> attention::AttentionArgs {
        let [batch, seq, heads, kv_heads, head_dim] =
            [self.batch, self.seq, self.heads, self.kv_heads, self.head_dim].map(|n| n as u32);
        attention::AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale: self.scale() }
    }
}

const fn shape(batch: usize, seq: usize, heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
    Shape { batch, seq, heads, kv_heads, head_dim, documents: &[] }
}

/// y and lse by the formula.
fn reference(s: Shape, q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut lse) = (vec![0.0; s.q()], vec![0.0; s.rows()]);
    for (row, lse) in lse.iter_mut().enumerate() {
        let (b, h, t) = (row / s.seq / s.heads, row / s.seq % s.heads, row % s.seq);
        let at = ((b * s.seq + t) * s.heads + h) * s.head_dim;
        let key = |j: usize| ((b * s.seq + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * s.head_dim;
        let score = |j: usize| (0..s.head_dim).map(|d| q[at + d] * k[key(j) + d]).sum::<f64>() * f64::from(s.scale());
        let seen = s.start(b, t)..t + 1;
        let weights: Vec<f64> = seen.clone().map(|j| score(j).exp()).collect();
        let total: f64 = weights.iter().sum();
        *lse = total.ln();
        for (j, weight) in seen.zip(&weights) {
            for d in 0..s.head_dim {
                y[at + d] += weight / total * v[key(j) + d];
            }
        }
    }
    (y, lse)
}

/// At one level, or at all of them, which must agree.
fn call<A: Args + Debug>(kernel: &'static Kernel, args: A, bufs: &[Data], at: Option<Level>) -> Vec<Vec<f32>> {
    match at {
        Some(level) => run(kernel, args, bufs, level, 2),
        None => check_levels(kernel, args, bufs, true),
    }
}

/// Rows of values, keys and queries.
fn together(s: Shape, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
    let [q_row, kv_row] = [s.heads, s.kv_heads].map(|heads| heads * s.head_dim);
    let rows = v.chunks(kv_row).zip(k.chunks(kv_row)).zip(q.chunks(q_row));
    rows.flat_map(|((v, k), q)| [v, k, q].concat()).collect()
}

/// [q, k, v] of such rows.
fn apart(s: Shape, qkv: &[f32]) -> [Vec<f32>; 3] {
    let [q_row, kv_row] = [s.heads, s.kv_heads].map(|heads| heads * s.head_dim);
    [(2 * kv_row, q_row), (kv_row, kv_row), (0, kv_row)]
        .map(|(first, len)| qkv.chunks(2 * kv_row + q_row).flat_map(|row| row[first..][..len].to_vec()).collect())
}

/// y and lse
fn forward(s: Shape, qkv: [&[f32]; 3], at: Option<Level>) -> (Vec<f32>, Vec<f32>) {
    let bufs = [(&together(s, qkv)).into(), (&s.positions()).into(), poison(s.q()), poison(s.rows())];
    let mut out = call(&ATTENTION, s.args(), &bufs, at);
    let lse = out.pop().unwrap();
    (out.pop().unwrap(), lse)
}

/// dq, dk, dv
fn backward(s: Shape, [q, k, v, y, lse, dy]: [&[f32]; 6], at: Option<Level>) -> [Vec<f32>; 3] {
    let attention::AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale } = s.args();
    let args = attention_backward_delta::AttentionBackwardDeltaArgs { batch, seq, heads, head_dim };
    let bufs = [y.into(), dy.into(), lse.into(), poison(2 * s.rows())];
    let stats = &call(&ATTENTION_BACKWARD_DELTA, args, &bufs, at)[3];
    let inputs: [Data; 4] = [(&together(s, [q, k, v])).into(), dy.into(), stats.into(), (&s.positions()).into()];
    let before = vec![9.0; s.q() + 2 * s.kv()];
    let bufs: Vec<Data> = inputs.iter().cloned().chain([(&before).into()]).collect();

    let args = attention_backward_q::AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
    let [dq, other_k, other_v] = apart(s, &call(&ATTENTION_BACKWARD_Q, args, &bufs, at)[4]);
    let args = attention_backward_kv::AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
    let [other_q, dk, dv] = apart(s, &call(&ATTENTION_BACKWARD_KV, args, &bufs, at)[4]);
    assert!([other_q, other_k, other_v].iter().flatten().all(|x| *x == 9.0), "{s:?}");
    [dq, dk, dv]
}

#[test]
fn agrees_with_the_formula() {
    let shapes = [
        shape(1, 1, 1, 1, 2),
        shape(2, 5, 2, 1, 6),
        shape(1, 23, 3, 3, 16),
        shape(2, 25, 4, 2, 32),
        shape(1, 64, 2, 2, 64),
        shape(1, 130, 2, 1, 80),
        shape(1, 100, 1, 1, 128),
        shape(1, 70, 2, 2, 256),
    ];
    for s in shapes.into_iter().flat_map(Shape::cuts) {
        let spread = |seed, n| -> Vec<f32> { noise(seed, n).iter().map(|x| 3.0 * x).collect() };
        let (q, k, v) = (spread(1, s.q()), spread(2, s.kv()), spread(3, s.kv()));
        let (y, lse) = forward(s, [&q, &k, &v], None);
        let want = reference(s, &wide(&q), &wide(&k), &wide(&v));
        assert_close(&y, &want.0, 1e-11);
        assert_close(&lse, &want.1, 1e-11);
    }
}

#[test]
fn gradients_are_those_of_the_formula() {
    let shapes = [
        shape(3, 2, 1, 1, 2),
        shape(2, 5, 2, 1, 6),
        shape(1, 27, 2, 2, 16),
        shape(1, 50, 2, 1, 4),
        shape(1, 30, 4, 2, 18),
    ];
    for s in shapes.into_iter().flat_map(Shape::cuts) {
        let (q, k, v, dy) = (noise(1, s.q()), noise(2, s.kv()), noise(3, s.kv()), noise(4, s.q()));
        let (y, lse) = forward(s, [&q, &k, &v], None);
        let [dq, dk, dv] = backward(s, [&q, &k, &v, &y, &lse, &dy], None);
        let (q_w, k_w, v_w) = (wide(&q), wide(&k), wide(&v));
        let value = |q: &[f64], k: &[f64], v: &[f64]| dot(&reference(s, q, k, v).0, &dy);
        assert_close(&dq, &gradient(&q, |q| value(q, &k_w, &v_w)), 1e-10);
        assert_close(&dk, &gradient(&k, |k| value(&q_w, k, &v_w)), 1e-10);
        assert_close(&dv, &gradient(&v, |v| value(&q_w, &k_w, v)), 1e-10);
    }
}

/// dq, dk, dv by the formulas of the op's backward files.
fn reference_backward(s: Shape, [q, k, v, dy]: [&[f64]; 4]) -> [Vec<f64>; 3] {
    let (y, lse) = reference(s, q, k, v);
    let (mut dq, mut dk, mut dv) = (vec![0.0; s.q()], vec![0.0; s.kv()], vec![0.0; s.kv()]);
    let (d, scale) = (s.head_dim, f64::from(s.scale()));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (row, lse) in lse.iter().enumerate() {
        let (b, h, t) = (row / s.seq / s.heads, row / s.seq % s.heads, row % s.seq);
        let at = ((b * s.seq + t) * s.heads + h) * d;
        let delta = product(&y[at..at + d], &dy[at..at + d]);
        for j in s.start(b, t)..=t {
            let key = ((b * s.seq + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * d;
            let p = (scale * product(&q[at..at + d], &k[key..key + d]) - lse).exp();
            let ds = p * (product(&dy[at..at + d], &v[key..key + d]) - delta);
            for e in 0..d {
                dv[key + e] += p * dy[at + e];
                dk[key + e] += scale * ds * q[at + e];
                dq[at + e] += scale * ds * k[key + e];
            }
        }
    }
    [dq, dk, dv]
}

#[test]
fn gradients_of_larger_shapes() {
    let shapes = [
        shape(2, 70, 2, 2, 64),
        shape(1, 131, 4, 2, 80),
        shape(1, 150, 2, 1, 128),
        shape(1, 65, 1, 1, 256),
        shape(1, 200, 3, 1, 32),
    ];
    for s in shapes.into_iter().flat_map(Shape::cuts) {
        let (q, k, v, dy) = (noise(1, s.q()), noise(2, s.kv()), noise(3, s.kv()), noise(4, s.q()));
        let (y, lse) = forward(s, [&q, &k, &v], None);
        let got = backward(s, [&q, &k, &v, &y, &lse, &dy], None);
        let want = reference_backward(s, [&wide(&q), &wide(&k), &wide(&v), &wide(&dy)]);
        for (got, want) in got.iter().zip(&want) {
            assert_close(got, want, 1e-11);
        }
    }
}

/// The first rows of each sequence of a (batch, seq, width) matrix.
fn cut(x: &[f32], s: Shape, seq: usize) -> Vec<f32> {
    x.chunks(x.len() / s.batch).flat_map(|x| x[..x.len() / s.seq * seq].to_vec()).collect()
}

#[test]
fn a_query_does_not_depend_on_what_surrounds_it() {
    let s = shape(2, 90, 2, 1, 64);
    let (q, k, v) = (noise(1, s.q()), noise(2, s.kv()), noise(3, s.kv()));
    for level in levels() {
        let (whole, _) = forward(s, [&q, &k, &v], Some(level));
        for seq in [1, 2, 17, 48, 89] {
            let short = Shape { seq, ..s };
            let (part, _) = forward(short, [&cut(&q, s, seq), &cut(&k, s, seq), &cut(&v, s, seq)], Some(level));
            assert_same(&cut(&whole, s, seq), &part, &format!("{seq} queries at {level}"));
        }
    }
}

/// Results and gradients of a document have the bits that it has alone.
#[test]
fn a_document_does_not_depend_on_what_surrounds_it() {
    let s = Shape { documents: &[3, 4, 21, 70], ..shape(1, 131, 4, 2, 40) };
    let (q, k, v, dy) = (noise(1, s.q()), noise(2, s.kv()), noise(3, s.kv()), noise(4, s.q()));
    for level in levels() {
        let results = |s: Shape, [q, k, v, dy]: [&[f32]; 4]| {
            let (y, lse) = forward(s, [q, k, v], Some(level));
            let [dq, dk, dv] = backward(s, [q, k, v, &y, &lse, dy], Some(level));
            [y, dq, dk, dv]
        };
        let whole = results(s, [&q, &k, &v, &dy]);
        for rows in [0..3, 3..4, 4..21, 21..70, 70..131] {
            let alone = Shape { seq: rows.len(), documents: &[], ..s };
            let part = |x: &[f32]| {
                let width = x.len() / s.seq;
                x[rows.start * width..rows.end * width].to_vec()
            };
            let want = results(alone, [&part(&q), &part(&k), &part(&v), &part(&dy)]);
            for (whole, want) in whole.iter().zip(&want) {
                assert_same(&part(whole), want, &format!("rows {rows:?} at {level}"));
            }
        }
    }
}
