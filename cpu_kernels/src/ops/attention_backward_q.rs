//! Gradient of `attention` with respect to q: p = exp(scale * q k - lse), ds = p * (dy v - delta), dq = scale * ds k.
//! stats (2, batch, heads, seq) are lse and delta. Rows of qkv and of dqkv are as in `attention`; of dqkv only dq is written.

use super::attention::Layout;
use crate::matrix::panels::{Cost, Panels, ROWS, Rows, product, share};
use crate::matrix::scratch::Scratch;
use crate::ops::documents::Documents;
use crate::simd::isa::Lanes;
use crate::simd::math::{LANES, exp};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct AttentionBackwardQArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_q(call: &Call<'_>) {
    let a: AttentionBackwardQArgs = call.args();
    let (pairs, seq) = ((a.batch * a.heads) as usize, a.seq as usize);
    // SAFETY: the contract of `Kernel`.
    let positions = unsafe { call.bufs[3].read::<u32>() };
    for (pair, blocks) in share((call.part, call.parts), pairs, seq.div_ceil(ROWS), Cost::Rising) {
        let positions = &positions[pair / a.heads as usize * seq..][..seq];
        let rows = blocks.start * ROWS..seq.min(blocks.end * ROWS);
        for (start, queries) in (Documents { positions, rows }) {
            let (a, queries) = (&a, queries.start - start..queries.end - start);
            at_level!(call.level, [head::<Plain, 2, 4>, head::<Avx2, 6, 2>, head::<Avx512, 6, 4>, head::<Neon, 6, 4>],
                (call: &Call<'_>, a: &AttentionBackwardQArgs, pair: usize, start: usize, queries: Range<usize>));
        }
    }
}

/// Queries of one head of one sequence, which count from `row`, the start of their document: pair = batch index * heads +
/// head.
#[inline(always)]
fn head<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    call: &Call<'_>,
    a: &AttentionBackwardQArgs,
    pair: usize,
    row: usize,
    queries: Range<usize>,
) {
    let (seq, heads, head_dim) = (a.seq as usize, a.heads as usize, a.head_dim as usize);
    let (b, h) = (pair / heads, pair % heads);
    let at = Layout::new(a.heads, a.kv_heads, a.head_dim);
    call.bufs[4].holds::<f32>(0, &[a.batch, a.seq, a.heads + 2 * a.kv_heads, a.head_dim]);
    // SAFETY: the contract of `Kernel`.
    let [qkv, dy, stats] = [0, 1, 2].map(|i| unsafe { call.bufs[i].read::<f32>() });
    let take = |first: usize, head: usize, rows: usize| Rows {
        data: &qkv[(b * seq + row + first) * at.row + head..],
        stride: at.row,
        rows,
    };
    let (k, v) = (take(0, at.k(h), queries.end), take(0, at.v(h), queries.end));
    let [lse, delta] = [pair, a.batch as usize * heads + pair].map(|pair| &stats[pair * seq + row..][..queries.end]);

    let width = queries.end.next_multiple_of(LANES);
    let wide = head_dim.next_multiple_of(LANES);
    let columns = Panels::size(head_dim, queries.end);
    let sizes = [columns, columns, Panels::size(queries.end, head_dim), ROWS * width, ROWS * width, ROWS * wide];
    let mut scratch = Scratch::of_thread();
    let [k_columns, v_columns, k_rows, p, ds, out] = scratch.slices(sizes);
    let k_columns = Panels::transposed(k_columns, k, head_dim);
    let v_columns = Panels::transposed(v_columns, v, head_dim);
    let k_rows = Panels::copied(k_rows, k, head_dim);
    for start in queries.clone().step_by(ROWS) {
        let end = queries.end.min(start + ROWS);
        let seen = |r: usize| 0..end.min(start + r + DOWN);
        let q = take(start, at.q(h), end - start);
        let dy = &dy[((b * seq + row + start) * heads + h) * head_dim..];
        let dy = Rows { data: dy, stride: heads * head_dim, rows: end - start };
        product::<L, DOWN, ACROSS>((q, k_columns), (p, width), false, &seen, &|_| 0..head_dim);
        product::<L, DOWN, ACROSS>((dy, v_columns), (ds, width), false, &seen, &|_| 0..head_dim);
        for (r, t) in (start..end).enumerate() {
            let row = r * width..r * width + end.next_multiple_of(LANES);
            score_gradient(a.scale, lse[t], delta[t], t + 1, &mut p[row.clone()], &mut ds[row]);
        }
        let ds = Rows { data: ds, stride: width, rows: end - start };
        product::<L, DOWN, ACROSS>((ds, k_rows), (out, wide), false, &|_| 0..head_dim, &seen);
        for (r, out) in out.chunks_exact(wide).take(end - start).enumerate() {
            let first = (b * seq + row + start + r) * at.row + at.q(h);
            // SAFETY: the contract of `Kernel`; these queries are this part's alone.
            let dq = unsafe { call.bufs[4].write::<f32>(first..first + head_dim) };
            for (dq, out) in dq.iter_mut().zip(out) {
                *dq = a.scale * out;
            }
        }
    }
}

/// From the scores in p and dp in ds: ds = p * (dp - delta) for the first n keys, 0 for the others.
#[inline(always)]
fn score_gradient(scale: f32, lse: f32, delta: f32, n: usize, p: &mut [f32], ds: &mut [f32]) {
    p[n..].fill(f32::NEG_INFINITY);
    ds[n..].fill(0.0);
    for (ds, p) in ds.iter_mut().zip(p) {
        *ds = exp(scale * *p - lse) * (*ds - delta);
    }
}
