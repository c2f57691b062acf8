//! Gradient of `embedding`: dtable[ids[r]] += dy[r], without atomics.
//!
//! `order` lists the rows sorted by id (ties in row order); the unit of work that finds the first row of an id adds up that
//! id's whole run, in order, so the sum does not depend on scheduling.

use crate::{Call, args, at_level};

args! {
    pub struct EmbeddingBackwardArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When an id is not below the number of rows of the table.
pub unsafe fn embedding_backward(call: &Call<'_>) {
    let a: EmbeddingBackwardArgs = call.args();
    let (rows, dim) = (a.rows as usize, a.dim as usize);
    // SAFETY: the contract of `Kernel`.
    let (ids, order, dy) =
        unsafe { (call.bufs[0].read::<u32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<f32>()) };
    let order = &order[..rows];
    let id = |i: usize| ids[order[i] as usize];
    for first in call.share(rows) {
        if first > 0 && id(first - 1) == id(first) {
            continue;
        }
        let run = (first + 1..rows).find(|i| id(*i) != id(first)).unwrap_or(rows);
        let start = id(first) as usize * dim;
        let len = call.bufs[3].len::<f32>();
        assert!(start + dim <= len, "id {} of a table of {} rows", id(first), len / dim);
        // SAFETY: the contract of `Kernel`; a row of the table is written by the part that holds its id's first row alone.
        let dtable = unsafe { call.bufs[3].write::<f32>(start..start + dim) };
        let order = &order[first..run];
        at_level!(call.level, body, (order: &[u32], dy: &[f32], dtable: &mut [f32]));
    }
}

#[inline(always)]
fn body(order: &[u32], dy: &[f32], dtable: &mut [f32]) {
    for row in order {
        let start = *row as usize * dtable.len();
        for (d, dy) in dtable.iter_mut().zip(&dy[start..]) {
            *d += dy;
        }
    }
}
