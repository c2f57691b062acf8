//! `attention` of rows that belong to several sequences, over cached keys and values: row r is at positions[r] of the sequence
//! in slots[r], and sees that sequence up to itself. A slot or a position beyond the cache,
//! such as a slot of 0xffffffff, gives 0.
//!
//! Keys and values lie as `kv_append` leaves them, so nothing is packed. A row has the bits that `attention` gives it,
//! whatever rows surround it.

use crate::matrix::panels::{PANEL, Panels, ROWS, Rows};
use crate::matrix::scratch::Scratch;
use crate::ops::attention::{attend, scores_size};
use crate::ops::kv_append::KvAppendArgs;
use crate::simd::isa::Lanes;
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct AttentionCachedArgs { rows: u32, heads: u32, kv_heads: u32, head_dim: u32, context: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_cached(call: &Call<'_>) {
    let a: AttentionCachedArgs = call.args();
    let heads = a.heads as usize;
    call.bufs[5].holds::<f32>(0, &[a.rows, a.heads, a.head_dim]);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (positions, slots) = unsafe { (call.bufs[3].read::<u32>(), call.bufs[4].read::<u32>()) };
    let AttentionCachedArgs { rows, kv_heads, head_dim, context, .. } = a;
    let held = |binding: usize, transposed: u32| {
        KvAppendArgs { rows, kv_heads, head_dim, context, transposed }.slots(call.bufs[binding].len::<f32>())
    };
    let cache = (held(1, 1).min(held(2, 0)), context as usize);
    let runs = || Runs { positions: &positions[..rows as usize], slots, cache, next: 0 };
    let mine = call.share(runs().count() * heads);
    for (i, run) in runs().enumerate() {
        let run_heads = mine.start.max(i * heads)..mine.end.min((i + 1) * heads);
        for unit in run_heads {
            let (h, run, a) = (unit - i * heads, run.clone(), &a);
            let place = runs().place(run.start);
            if run.len() == 1 {
                at_level!(call.level, [head::<Plain, 1, 4>, head::<Avx2, 1, 4>, head::<Avx512, 1, 4>, head::<Neon, 1, 4>],
                    (call: &Call<'_>, a: &AttentionCachedArgs, h: usize, run: Range<usize>, place: Option<(usize, usize)>));
            } else {
                at_level!(call.level, [head::<Plain, 2, 4>, head::<Avx2, 6, 2>, head::<Avx512, 6, 4>, head::<Neon, 6, 4>],
                    (call: &Call<'_>, a: &AttentionCachedArgs, h: usize, run: Range<usize>, place: Option<(usize, usize)>));
            }
        }
    }
}

/// Stretches of rows at consecutive positions of one sequence, at most [`ROWS`] long.
struct Runs<'a> {
    positions: &'a [u32],
    slots: &'a [u32],
    /// Slots and positions that the cache holds.
    cache: (usize, usize),
    next: usize,
}

impl Runs<'_> {
    /// Slot and position of a row; `None` for one that sees nothing.
    fn place(&self, row: usize) -> Option<(usize, usize)> {
        let (slot, position) = (self.slots[row] as usize, self.positions[row] as usize);
        (slot < self.cache.0 && position < self.cache.1).then_some((slot, position))
    }
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        if start == self.positions.len() {
            return None;
        }
        let next = |r: usize| self.place(start).map(|(slot, position)| (slot, position + r - start));
        let follows = |r: usize| self.place(r) == next(r);
        let limit = self.positions.len().min(start + ROWS);
        self.next = (start + 1..limit).find(|r| !follows(*r)).unwrap_or(limit);
        Some(start..self.next)
    }
}

/// One head of one run, which starts at a (slot, position), or whose rows see nothing.
#[inline(always)]
fn head<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    call: &Call<'_>,
    a: &AttentionCachedArgs,
    h: usize,
    run: Range<usize>,
    place: Option<(usize, usize)>,
) {
    let [heads, kv_heads, head_dim, context] = [a.heads, a.kv_heads, a.head_dim, a.context].map(|n| n as usize);
    let start = (run.start * heads + h) * head_dim;
    let write = |r: usize, out: Option<&[f32]>, factor: f32| {
        let at = start + r * heads * head_dim;
        // SAFETY: the contract of `Kernel`; these rows of this head are this part's alone.
        let y = unsafe { call.bufs[5].write::<f32>(at..at + head_dim) };
        match out {
            Some(out) => y.iter_mut().zip(out).for_each(|(y, out)| *y = out * factor),
            None => y.fill(0.0),
        }
    };
    let Some((slot, first)) = place else { return (0..run.len()).for_each(|r| write(r, None, 0.0)) };
    let keys = first + run.len();
    // SAFETY: the contract of `Kernel`.
    let [q, k, v] = [0, 1, 2].map(|i| unsafe { call.bufs[i].read::<f32>() });
    let kv_head = slot * kv_heads + h / (heads / kv_heads);
    let panels = context.div_ceil(PANEL) * PANEL * head_dim;
    let k = Panels::dense(&k[kv_head * panels..][..panels], head_dim);
    let v = Rows { data: &v[kv_head * context * head_dim..], stride: head_dim, rows: keys };
    let v = Panels::rows(v, head_dim);
    let q = Rows { data: &q[start..], stride: heads * head_dim, rows: run.len() };
    let mut scratch = Scratch::of_thread();
    let [scores] = scratch.slices([scores_size(keys, head_dim)]);
    let done = |r: usize, out: &[f32], factor: f32, _| write(r, Some(out), factor);
    attend::<L, DOWN, ACROSS>(a.scale, (q, first), (k, v), (head_dim, scores), done);
}
