//! Token embedding from a part of an int8 table with a scale for every 32 values: y[r] = scale * table[ids[r] - first]. As in
//! `embedding`, another id gives zeros where `first` is 0, and otherwise leaves the row.

use crate::ops::int8_matmul::GROUP;
use crate::{Call, args};

args! {
    pub struct EmbeddingInt8Args { rows: u32, dim: u32, first: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
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
        let row = id.checked_sub(a.first).and_then(|id| {
            let id = id as usize;
            codes.chunks_exact(dim).nth(id).zip(scales.chunks_exact(dim / GROUP).nth(id))
        });
        let Some((codes, scales)) = row else {
            if a.first == 0 {
                y.fill(0.0);
            }
            continue;
        };
        for ((y, codes), scale) in y.chunks_exact_mut(GROUP).zip(codes.chunks_exact(GROUP)).zip(scales) {
            y.iter_mut().zip(codes).for_each(|(y, code)| *y = scale * f32::from(*code));
        }
    }
}
