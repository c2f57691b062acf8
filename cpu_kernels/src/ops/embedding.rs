//! Token embedding: y[r] = table[ids[r]].

use crate::{Call, args};

args! {
    pub struct EmbeddingArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When an id is not below the number of rows of the table.
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
        let start = *id as usize * dim;
        assert!(start + dim <= table.len(), "id {id} of a table of {} rows", table.len() / dim);
        y.copy_from_slice(&table[start..start + dim]);
    }
}
