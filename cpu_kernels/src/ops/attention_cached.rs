//! `attention` of rows that belong to several sequences, over cached keys and values: row r is at positions[r] of the sequence
//! in slots[r], and sees that sequence up to itself. A slot or a position beyond the table `pages`, such as a slot of
//! 0xffffffff, gives 0, and so does a sequence with a page up to there that is beyond the cache.
//!
//! Keys and values lie in pages as `kv_append` leaves them, so nothing is packed. A row has the bits that `attention` gives it,
//! whatever rows surround it and wherever its pages are.

use crate::matrix::panels::{Panels, ROWS, Rows};
use crate::matrix::scratch::Scratch;
use crate::ops::attention::{attend, scores_size};
use crate::ops::kv_append::{PAGE, Pages};
use crate::simd::isa::Lanes;
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct AttentionCachedArgs { rows: u32, heads: u32, kv_heads: u32, head_dim: u32, slot_pages: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_cached(call: &Call<'_>) {
    let a: AttentionCachedArgs = call.args();
    let heads = a.heads as usize;
    call.bufs[6].holds::<f32>(0, &[a.rows, a.heads, a.head_dim]);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let [positions, slots, table] = [3, 4, 5].map(|i| unsafe { call.bufs[i].read::<u32>() });
    let cache = call.bufs[1].len::<f32>().min(call.bufs[2].len::<f32>());
    let pages = &Pages::new(table, a.slot_pages, (a.kv_heads, a.head_dim), cache);
    let runs = || Runs { positions: &positions[..a.rows as usize], slots, pages, next: 0 };
    let mine = call.share(runs().count() * heads);
    for (i, run) in runs().enumerate() {
        let (mut h, end) = (mine.start.max(i * heads) - i * heads, mine.end.saturating_sub(i * heads).min(heads));
        let last = run.end - 1;
        let seen = pages.up_to(slots[last], positions[last]).map(|pages| (pages, positions[run.start] as usize));
        while h < end {
            // The heads of a single row that share keys and values read them together.
            let together = if run.len() == 1 { heads / a.kv_heads as usize } else { 1 };
            let hs = h..end.min((h / together + 1) * together);
            h = hs.end;
            let (a, rows) = (&a, (run.clone(), hs));
            match (rows.0.len(), rows.1.len()) {
                (1, 1) => {
                    at_level!(call.level, [head::<Plain, 1, 4>, head::<Avx2, 1, 4>, head::<Avx512, 1, 4>, head::<Neon, 1, 4>],
                        (call: &Call<'_>, a: &AttentionCachedArgs, rows: Queries, seen: Option<(&[u32], usize)>))
                }
                (1, _) => {
                    at_level!(call.level, [head::<Plain, 2, 4>, head::<Avx2, 4, 2>, head::<Avx512, 4, 4>, head::<Neon, 4, 4>],
                        (call: &Call<'_>, a: &AttentionCachedArgs, rows: Queries, seen: Option<(&[u32], usize)>))
                }
                _ => {
                    at_level!(call.level, [head::<Plain, 2, 4>, head::<Avx2, 6, 2>, head::<Avx512, 6, 4>, head::<Neon, 6, 4>],
                        (call: &Call<'_>, a: &AttentionCachedArgs, rows: Queries, seen: Option<(&[u32], usize)>))
                }
            }
        }
    }
}

/// Stretches of rows at consecutive positions of one sequence, at most [`ROWS`] long.
struct Runs<'a> {
    positions: &'a [u32],
    slots: &'a [u32],
    pages: &'a Pages<'a>,
    next: usize,
}

impl Runs<'_> {
    /// Slot and position of a row; `None` for one that sees nothing.
    fn place(&self, row: usize) -> Option<(u32, usize)> {
        let (slot, position) = (self.slots[row], self.positions[row]);
        self.pages.up_to(slot, position).map(|_| (slot, position as usize))
    }
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        if start == self.positions.len() {
            return None;
        }
        let first = self.place(start);
        let follows = |r: usize| self.place(r) == first.map(|(slot, position)| (slot, position + r - start));
        let limit = self.positions.len().min(start + ROWS);
        self.next = (start + 1..limit).find(|r| !follows(*r)).unwrap_or(limit);
        Some(start..self.next)
    }
}

/// Rows and heads: several rows of one head, or one row of several heads that share keys and values.
type Queries = (Range<usize>, Range<usize>);

/// Queries that see these pages and start at a position, or that see nothing.
#[inline(always)]
fn head<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    call: &Call<'_>,
    a: &AttentionCachedArgs,
    (rows, hs): Queries,
    seen: Option<(&[u32], usize)>,
) {
    let [heads, kv_heads, head_dim] = [a.heads, a.kv_heads, a.head_dim].map(|n| n as usize);
    let start = (rows.start * heads + hs.start) * head_dim;
    let step = usize::from(rows.len() > 1);
    let (n, stride) = if step == 1 { (rows.len(), heads * head_dim) } else { (hs.len(), head_dim) };
    let write = |r: usize, out: Option<&[f32]>, factor: f32| {
        let at = start + r * stride;
        // SAFETY: the contract of `Kernel`; these rows of this head are this part's alone.
        let y = unsafe { call.bufs[6].write::<f32>(at..at + head_dim) };
        match out {
            Some(out) => y.iter_mut().zip(out).for_each(|(y, out)| *y = out * factor),
            None => y.fill(0.0),
        }
    };
    let Some((pages, first)) = seen else { return (0..n).for_each(|r| write(r, None, 0.0)) };
    let keys = first + rows.len();
    // SAFETY: the contract of `Kernel`.
    let [q, k, v] = [0, 1, 2].map(|i| unsafe { call.bufs[i].read::<f32>() });
    let kv_head = hs.start / (heads / kv_heads);
    let pages = (pages, kv_heads * head_dim * PAGE);
    let [k, v] = [k, v].map(|x| &x[kv_head * head_dim * PAGE..]);
    let (k, v) = (Panels::in_pages(k, head_dim, pages), Panels::rows_in_pages(v, (keys, head_dim), pages));
    let q = Rows { data: &q[start..], stride, rows: n };
    let mut scratch = Scratch::of_thread();
    let [scores] = scratch.slices([scores_size(keys, head_dim)]);
    let done = |r: usize, out: &[f32], factor: f32, _| write(r, Some(out), factor);
    attend::<L, DOWN, ACROSS>(a.scale, (q, first, step), (k, v), (head_dim, scores), done);
}
