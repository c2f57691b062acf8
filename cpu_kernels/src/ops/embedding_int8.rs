//! Token embedding from an int8 table with a scale for every 32 values: y[r] = scale * table[ids[r]].

use crate::ops::int8_matmul::GROUP;
use crate::{Call, args};

args! {
    pub struct EmbeddingInt8Args { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When an id is not below the number of rows of the table.
pub unsafe fn embedding_int8(call: &Call<'_>) {
    let a: EmbeddingInt8Args = call.args();
    let dim = a.dim as usize;
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (ids, codes, scales, y) = unsafe {
        let y = call.bufs[3].write::<f32>(part.start * dim..part.end * dim);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<i8>(), call.bufs[2].read::<f32>(), y)
    };
    for (id, y) in ids[part].iter().zip(y.chunks_exact_mut(dim)) {
        let start = *id as usize * dim;
        assert!(start + dim <= codes.len(), "id {id} of a table of {} rows", codes.len() / dim);
        let row = codes[start..start + dim].chunks_exact(GROUP).zip(&scales[start / GROUP..]);
        for (y, (codes, scale)) in y.chunks_exact_mut(GROUP).zip(row) {
            y.iter_mut().zip(codes).for_each(|(y, code)| *y = scale * f32::from(*code));
        }
    }
}
