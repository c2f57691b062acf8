//! Causal grouped-query attention: y = softmax(scale * q k^T) v. Query head h reads key-value head h / (heads / kv_heads). A row
//! of qkv is the values, the keys and the queries of a token: kv_heads, kv_heads and heads heads.
//! Row t of a sequence sees its document, the rows from t - positions[t] (0 if that is before the sequence) to t: all before
//! it, unless positions start again within the sequence. Keeps lse = log(sum(exp(scores))) for backward.
//!
//! A score is one chain of multiply-adds over head_dim, the sum of a softmax runs in lanes over the keys (`math::sum`), and
//! y is one chain over the keys, times 1 / sum at the end: the bits of a query depend on its keys alone, not on how
//! many queries, later keys or other documents there are. Multiply-adds are fused at the SIMD levels, so those differ from the scalar level.

use crate::matrix::panels::{Cost, Panels, ROWS, Rows, product, share};
use crate::matrix::scratch::Scratch;
use crate::ops::documents::Documents;
use crate::simd::isa::Lanes;
use crate::simd::math::{LANES, exp, max, sum};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct AttentionArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// Where the heads of a row of qkv begin.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Elements of a row.
    pub row: usize,
    /// Heads of values, of keys, and of queries for each of them.
    kv_heads: usize,
    group: usize,
    head_dim: usize,
}

impl Layout {
    pub fn new(heads: u32, kv_heads: u32, head_dim: u32) -> Self {
        let [heads, kv_heads, head_dim] = [heads, kv_heads, head_dim].map(|n| n as usize);
        Layout { row: (heads + 2 * kv_heads) * head_dim, kv_heads, group: heads / kv_heads, head_dim }
    }

    /// The first element of a query head.
    pub fn q(self, head: usize) -> usize {
        (2 * self.kv_heads + head) * self.head_dim
    }

    /// The first element of the keys that a query head reads.
    pub fn k(self, head: usize) -> usize {
        (self.kv_heads + head / self.group) * self.head_dim
    }

    /// The first element of the values that a query head reads.
    pub fn v(self, head: usize) -> usize {
        head / self.group * self.head_dim
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention(call: &Call<'_>) {
    let a: AttentionArgs = call.args();
    let (pairs, seq) = ((a.batch * a.heads) as usize, a.seq as usize);
    // SAFETY: the contract of `Kernel`.
    let positions = unsafe { call.bufs[1].read::<u32>() };
    for (pair, blocks) in share((call.part, call.parts), pairs, seq.div_ceil(ROWS), Cost::Rising) {
        let positions = &positions[pair / a.heads as usize * seq..][..seq];
        let rows = blocks.start * ROWS..seq.min(blocks.end * ROWS);
        for (start, queries) in (Documents { positions, rows }) {
            let a = &a;
            at_level!(call.level, [head::<Plain, 2, 4>, head::<Avx2, 6, 2>, head::<Avx512, 6, 4>, head::<Neon, 6, 4>],
                (call: &Call<'_>, a: &AttentionArgs, pair: usize, start: usize, queries: Range<usize>));
        }
    }
}

/// Queries of one head of one sequence, in the document that starts at row `start`: pair = batch index * heads + head.
#[inline(always)]
fn head<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    call: &Call<'_>,
    a: &AttentionArgs,
    pair: usize,
    start: usize,
    queries: Range<usize>,
) {
    let (seq, heads, head_dim) = (a.seq as usize, a.heads as usize, a.head_dim as usize);
    let (b, h) = (pair / heads, pair % heads);
    call.bufs[2].holds::<f32>(0, &[a.batch, a.seq, a.heads, a.head_dim]);
    // SAFETY: the contract of `Kernel`.
    let qkv = unsafe { call.bufs[0].read::<f32>() };
    let (keys, at) = (queries.end - start, Layout::new(a.heads, a.kv_heads, a.head_dim));
    let take = |row: usize, head: usize, rows: usize| Rows {
        data: &qkv[(b * seq + row) * at.row + head..],
        stride: at.row,
        rows,
    };
    let (k, v) = (take(start, at.k(h), keys), take(start, at.v(h), keys));
    // SAFETY: the contract of `Kernel`; these queries are this part's alone.
    let lse = unsafe { call.bufs[3].write::<f32>(pair * seq + queries.start..pair * seq + queries.end) };

    let first = ((b * seq + queries.start) * heads + h) * head_dim;
    let q = take(queries.start, at.q(h), queries.len());
    let done = |r: usize, out: &[f32], of_sum: f32, of_row: f32| {
        let first = first + r * heads * head_dim;
        // SAFETY: the contract of `Kernel`; these queries are this part's alone.
        let y = unsafe { call.bufs[2].write::<f32>(first..first + head_dim) };
        y.iter_mut().zip(out).for_each(|(y, out)| *y = out * of_sum);
        lse[r] = of_row;
    };
    let mut packed = Scratch::of_thread();
    let sizes = [Panels::size(head_dim, keys), Panels::size(keys, head_dim), scores_size(keys, head_dim)];
    let [k_pack, v_pack, scores] = packed.slices(sizes);
    let (k, v) = (Panels::transposed(k_pack, k, head_dim), Panels::copied(v_pack, v, head_dim));
    attend::<L, DOWN, ACROSS>(a.scale, (q, queries.start - start, 1), (k, v), (head_dim, scores), done);
}

/// Floats that [`attend`] works in, over so many keys.
pub(crate) fn scores_size(keys: usize, head_dim: usize) -> usize {
    ROWS * (keys.next_multiple_of(LANES) + head_dim.next_multiple_of(LANES))
}

/// Attention of queries at the positions `first`, `first + step` and so on, over keys (head_dim, keys) and values
/// (keys, head_dim) up to the last query's position. Calls `done(row, weighted sum of values, 1 / sum of weights, lse)` for
/// each.
#[inline(always)]
pub(crate) fn attend<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    scale: f32,
    (q, first, step): (Rows<'_>, usize, usize),
    (k, v): (Panels<'_>, Panels<'_>),
    (head_dim, scratch): (usize, &mut [f32]),
    mut done: impl FnMut(usize, &[f32], f32, f32),
) {
    let keys = first + (q.rows - 1) * step + 1;
    let (width, wide) = (keys.next_multiple_of(LANES), head_dim.next_multiple_of(LANES));
    let (scores, out) = scratch[..scores_size(keys, head_dim)].split_at_mut(ROWS * width);
    for block in (0..q.rows).step_by(ROWS) {
        let n = ROWS.min(q.rows - block);
        let seen_by = |r: usize| first + (block + r) * step + 1;
        let end = seen_by(n - 1);
        let seen = |r: usize| 0..end.min(seen_by(r + DOWN - 1));
        let rows = Rows { data: &q.data[block * q.stride..], stride: q.stride, rows: n };
        product::<L, DOWN, ACROSS>((rows, k), (scores, width), false, &seen, &|_| 0..head_dim);
        let mut results = [(0.0, 0.0); ROWS];
        for (r, result) in results.iter_mut().enumerate().take(n) {
            let scores = &mut scores[r * width..][..end.next_multiple_of(LANES)];
            *result = softmax(scale, seen_by(r), scores);
        }
        let weights = Rows { data: scores, stride: width, rows: n };
        product::<L, DOWN, ACROSS>((weights, v), (out, wide), false, &|_| 0..head_dim, &seen);
        for (r, (out, (lse, factor))) in out.chunks_exact(wide).zip(results).take(n).enumerate() {
            done(block + r, &out[..head_dim], factor, lse);
        }
    }
}

/// Replaces the first n scores by exp(scale * score - their largest), the others by 0. Returns lse and 1 / sum.
#[inline(always)]
fn softmax(scale: f32, n: usize, scores: &mut [f32]) -> (f32, f32) {
    for s in scores.iter_mut() {
        *s *= scale;
    }
    scores[n..].fill(f32::NEG_INFINITY);
    let top = max(scores);
    for s in scores.iter_mut() {
        *s = exp(*s - top);
    }
    let total = sum(scores);
    (top + total.ln(), 1.0 / total)
}
