//! y[s][r] = old[s][r] for rows that take no further pass, ends[pick[r]] != 0, and next[s][r] for the others. A pick beyond
//! `ends`, such as 0xffffffff, goes on.

use crate::{Call, args};

args! {
    pub struct KeepRowsArgs { streams: u32, rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn keep_rows(call: &Call<'_>) {
    let a: KeepRowsArgs = call.args();
    let [streams, rows, dim] = [a.streams, a.rows, a.dim].map(|n| n as usize);
    let mine = call.share(streams * rows);
    let span = mine.start * dim..mine.end * dim;
    // SAFETY: the contract of `Kernel`; each part writes its own rows.
    let (pick, ends, old, next, y) = unsafe {
        let [old, next] = [2, 3].map(|i: usize| call.bufs[i].read::<f32>());
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<u32>(), old, next, call.bufs[4].write::<f32>(span.clone()))
    };
    let pick = &pick[..rows];
    let both = old[span.clone()].chunks_exact(dim).zip(next[span].chunks_exact(dim));
    for ((i, y), (old, next)) in mine.zip(y.chunks_exact_mut(dim)).zip(both) {
        let ended = ends.get(pick[i % rows] as usize).is_some_and(|end| *end != 0);
        y.copy_from_slice(if ended { old } else { next });
    }
}
