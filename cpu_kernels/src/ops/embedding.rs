//! Token embedding from a part of the table, whose first row is that of id `first`: y[r] = table[ids[r] - first]. Another id gives
//! zeros where `first` is 0; otherwise it leaves the row to the ops of other parts.

use crate::{Call, args};

args! {
    pub struct EmbeddingArgs { rows: u32, dim: u32, first: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn embedding(call: &Call<'_>) {
    let a: EmbeddingArgs = call.args();
    let dim = a.dim as usize;
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (ids, table, y) = unsafe {
        let y = call.bufs[2].write::<f32>(part.start * dim..part.end * dim);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<f32>(), y)
    };
    for (id, y) in ids[part].iter().zip(y.chunks_exact_mut(dim)) {
        match id.checked_sub(a.first).and_then(|id| table.chunks_exact(dim).nth(id as usize)) {
            Some(row) => y.copy_from_slice(row),
            None if a.first == 0 => y.fill(0.0),
            None => {}
        }
    }
}
