//! y[r] = x[index[r]]; an index beyond x, such as 0xffffffff, gives 0.

use crate::{Call, args};

args! {
    pub struct GatherRowsArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn gather_rows(call: &Call<'_>) {
    let a: GatherRowsArgs = call.args();
    let (mine, dim) = (call.share(a.rows as usize), a.dim as usize);
    // SAFETY: the contract of `Kernel`; each part writes its own rows.
    let (x, index, y) = unsafe {
        (
            call.bufs[0].read::<f32>(),
            call.bufs[1].read::<u32>(),
            call.bufs[2].write::<f32>(mine.start * dim..mine.end * dim),
        )
    };
    for (y, index) in y.chunks_exact_mut(dim).zip(&index[mine]) {
        match x.chunks_exact(dim).nth(*index as usize) {
            Some(row) => y.copy_from_slice(row),
            None => y.fill(0.0),
        }
    }
}
