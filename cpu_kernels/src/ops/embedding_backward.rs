//! Gradient of `embedding`, for the same part of the table: dtable[ids[r] - first] += dy[r], without atomics.
//!
//! `order` lists the rows sorted by id (ties in row order): each part of the columns adds up the rows of an id in that order,
//! so the sum does not depend on scheduling. A row beyond the last one and an id that is not in the part add nothing.

use crate::simd::math::LANES;
use crate::{Call, args, at_level};

args! {
    pub struct EmbeddingBackwardArgs { rows: u32, dim: u32, first: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn embedding_backward(call: &Call<'_>) {
    let a: EmbeddingBackwardArgs = call.args();
    let (rows, dim) = (a.rows as usize, a.dim as usize);
    // SAFETY: the contract of `Kernel`.
    let (ids, order, dy) =
        unsafe { (call.bufs[0].read::<u32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<f32>()) };
    let (ids, order, first) = (&ids[..rows], &order[..rows], a.first);
    let table = call.bufs[3].len::<f32>() / dim;
    let cols = call.share_blocks(dim, LANES);
    let id = |row: &u32| {
        let id = ids.get(*row as usize).and_then(|id| id.checked_sub(first));
        id.map_or(usize::MAX, |id| id as usize)
    };
    for run in order.chunk_by(|a, b| id(a) == id(b)).filter(|run| id(&run[0]) < table) {
        let start = id(&run[0]) * dim;
        // SAFETY: the contract of `Kernel`; this part writes its columns alone.
        let dtable = unsafe { call.bufs[3].write::<f32>(start + cols.start..start + cols.end) };
        let dy = &dy[cols.start..];
        at_level!(call.level, body, (run: &[u32], dim: usize, dy: &[f32], dtable: &mut [f32]));
    }
}

#[inline(always)]
fn body(run: &[u32], dim: usize, dy: &[f32], dtable: &mut [f32]) {
    for row in run {
        for (d, dy) in dtable.iter_mut().zip(&dy[*row as usize * dim..]) {
            *d += dy;
        }
    }
}
