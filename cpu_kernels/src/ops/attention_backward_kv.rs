//! Gradient of `attention` with respect to k and v, summed over the query heads that share them:
//! p = exp(scale * q k - lse), dv = p^T dy, dk = scale * ds^T q with ds = p * (dy v - delta).
//! stats (2, batch, heads, seq) are lse and delta. Rows of qkv and of dqkv are as in `attention`; of dqkv only dk and dv are
//! written.

use super::attention::Layout;
use crate::matrix::panels::{Cost, Panels, ROWS, Rows, product, share};
use crate::matrix::scratch::Scratch;
use crate::ops::documents::{Documents, end};
use crate::simd::isa::Lanes;
use crate::simd::math::{LANES, exp};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct AttentionBackwardKvArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_kv(call: &Call<'_>) {
    let a: AttentionBackwardKvArgs = call.args();
    let (pairs, seq) = ((a.batch * a.kv_heads) as usize, a.seq as usize);
    // SAFETY: the contract of `Kernel`.
    let positions = unsafe { call.bufs[3].read::<u32>() };
    for (pair, blocks) in share((call.part, call.parts), pairs, seq.div_ceil(ROWS), Cost::Falling) {
        let positions = &positions[pair / a.kv_heads as usize * seq..][..seq];
        let rows = blocks.start * ROWS..seq.min(blocks.end * ROWS);
        for (_, keys) in (Documents { positions, rows }) {
            let (a, end) = (&a, end(positions, keys.start));
            at_level!(call.level, [kv_head::<Plain, 2, 4>, kv_head::<Avx2, 6, 2>, kv_head::<Avx512, 6, 4>, kv_head::<Neon, 6, 4>],
                (call: &Call<'_>, a: &AttentionBackwardKvArgs, pair: usize, keys: Range<usize>, end: usize));
        }
    }
}

/// Keys of one key-value head of one sequence, in the document that ends before row `end`: pair = batch index * kv_heads +
/// head. Queries and keys count from the first key.
#[inline(always)]
fn kv_head<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    call: &Call<'_>,
    a: &AttentionBackwardKvArgs,
    pair: usize,
    keys: Range<usize>,
    end: usize,
) {
    let (seq, heads, kv_heads, head_dim) = (a.seq as usize, a.heads as usize, a.kv_heads as usize, a.head_dim as usize);
    let (b, kv_head) = (pair / kv_heads, pair % kv_heads);
    let at = Layout::new(a.heads, a.kv_heads, a.head_dim);
    call.bufs[4].holds::<f32>(0, &[a.batch, a.seq, a.heads + 2 * a.kv_heads, a.head_dim]);
    let (group, n) = (heads / kv_heads, end - keys.start);
    // SAFETY: the contract of `Kernel`.
    let [qkv, dy, row_stats] = [0, 1, 2].map(|i| unsafe { call.bufs[i].read::<f32>() });
    let take = |first: usize, head: usize, rows: usize| Rows {
        data: &qkv[(b * seq + keys.start + first) * at.row + head..],
        stride: at.row,
        rows,
    };

    let (width, wide) = (n.next_multiple_of(LANES), head_dim.next_multiple_of(LANES));
    let (columns, rows) = (Panels::size(head_dim, n), Panels::size(n, head_dim));
    let sums = keys.len() * wide;
    let sizes = [columns, columns, rows, rows, 2 * width, 2 * ROWS * width, sums, sums];
    let mut scratch = Scratch::of_thread();
    let [q_columns, dy_columns, q_rows, dy_rows, stats, scores, dk, dv] = scratch.slices(sizes);
    for h in kv_head * group..(kv_head + 1) * group {
        let q = take(0, at.q(h), n);
        let dy = &dy[((b * seq + keys.start) * heads + h) * head_dim..];
        let dy = Rows { data: dy, stride: heads * head_dim, rows: n };
        let queries = Queries {
            q_columns: Panels::transposed(q_columns, q, head_dim),
            dy_columns: Panels::transposed(dy_columns, dy, head_dim),
            q_rows: Panels::copied(q_rows, q, head_dim),
            dy_rows: Panels::copied(dy_rows, dy, head_dim),
            stats: {
                stats.fill(0.0);
                let row = (b * heads + h) * seq + keys.start;
                stats[..n].copy_from_slice(&row_stats[row..][..n]);
                stats[width..][..n].copy_from_slice(&row_stats[a.batch as usize * heads * seq + row..][..n]);
                stats
            },
            scale: a.scale,
            add: h != kv_head * group,
        };
        for start in (0..keys.len()).step_by(ROWS) {
            let some = ROWS.min(keys.len() - start);
            let (k, v) = (take(start, at.k(h), some), take(start, at.v(h), some));
            let (dk, dv) = (&mut dk[start * wide..], &mut dv[start * wide..]);
            key_block::<L, DOWN, ACROSS>(&queries, start, (k, v), scores, (dk, dv));
        }
    }
    for (r, (dk, dv)) in dk.chunks_exact(wide).zip(dv.chunks_exact(wide)).enumerate() {
        let row = (b * seq + keys.start + r) * at.row;
        let [to_dk, to_dv] = [at.k(kv_head * group), at.v(kv_head * group)].map(|head| {
            // SAFETY: the contract of `Kernel`; these keys are this part's alone.
            unsafe { call.bufs[4].write::<f32>(row + head..row + head + head_dim) }
        });
        for (to, dk) in to_dk.iter_mut().zip(dk) {
            *to = a.scale * dk;
        }
        to_dv.copy_from_slice(&dv[..head_dim]);
    }
}

/// The queries of one head.
struct Queries<'a> {
    q_columns: Panels<'a>,
    dy_columns: Panels<'a>,
    q_rows: Panels<'a>,
    dy_rows: Panels<'a>,
    /// lse, then delta, each padded to whole lanes.
    stats: &'a [f32],
    scale: f32,
    /// Whether to add to the sums.
    add: bool,
}

/// The sums ds^T q and p^T dy for the keys from `start`; scores hold (key, query).
#[inline(always)]
fn key_block<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    queries: &Queries<'_>,
    start: usize,
    (k, v): (Rows<'_>, Rows<'_>),
    scores: &mut [f32],
    (dk, dv): (&mut [f32], &mut [f32]),
) {
    let (n, head_dim) = (queries.q_rows.depth(), queries.q_columns.depth());
    let width = n.next_multiple_of(LANES);
    let wide = head_dim.next_multiple_of(LANES);
    let (p, ds) = scores.split_at_mut(ROWS * width);
    let seeing = &|r: usize| start + r..n;
    product::<L, DOWN, ACROSS>((k, queries.q_columns), (p, width), false, seeing, &|_| 0..head_dim);
    product::<L, DOWN, ACROSS>((v, queries.dy_columns), (ds, width), false, seeing, &|_| 0..head_dim);
    let aligned = start / LANES * LANES;
    let (lse, delta) = queries.stats.split_at(width);
    let (lse, delta) = (&lse[aligned..], &delta[aligned..]);
    for r in 0..k.rows {
        let row = r * width + aligned..(r + 1) * width;
        let valid = start - aligned + r..n - aligned;
        score_gradient(queries.scale, lse, delta, valid, &mut p[row.clone()], &mut ds[row]);
    }
    let [p, ds] = [p, ds].map(|data| Rows { data, stride: width, rows: k.rows });
    product::<L, DOWN, ACROSS>((p, queries.dy_rows), (dv, wide), queries.add, &|_| 0..head_dim, seeing);
    product::<L, DOWN, ACROSS>((ds, queries.q_rows), (dk, wide), queries.add, &|_| 0..head_dim, seeing);
}

/// From the scores in p and dp in ds: p = exp(scale * score - lse), ds = p * (dp - delta); 0 outside `valid`.
#[inline(always)]
fn score_gradient(scale: f32, lse: &[f32], delta: &[f32], valid: Range<usize>, p: &mut [f32], ds: &mut [f32]) {
    for (x, masked) in [(&mut *p, f32::NEG_INFINITY), (&mut *ds, 0.0)] {
        x[..valid.start].fill(masked);
        x[valid.end..].fill(masked);
    }
    for (((ds, p), lse), delta) in ds.iter_mut().zip(p).zip(lse).zip(delta) {
        *p = exp(scale * *p - lse);
        *ds = *p * (*ds - delta);
    }
}
