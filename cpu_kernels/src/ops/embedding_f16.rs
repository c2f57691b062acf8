//! Token embedding from a part of a table of f16 values: y[r] = table[ids[r] - first]. As in `embedding`, another id gives zeros
//! where `first` is 0, and otherwise leaves the row.

use crate::Call;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

pub use super::embedding::EmbeddingArgs;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn embedding_f16(call: &Call<'_>) {
    let a: EmbeddingArgs = call.args();
    let dim = a.dim as usize;
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (ids, table, y) = unsafe {
        let y = call.bufs[2].write::<f32>(part.start * dim..part.end * dim);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<u16>(), y)
    };
    for (id, y) in ids[part].iter().zip(y.chunks_exact_mut(dim)) {
        match id.checked_sub(a.first).and_then(|id| table.chunks_exact(dim).nth(id as usize)) {
            Some(row) => row.reinterpret_cast::<half::f16>().convert_to_f32_slice(y),
            None if a.first == 0 => y.fill(0.0),
            None => {}
        }
    }
}
