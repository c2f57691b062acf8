//! Stores keys or values in a cache: cache[slots[r]][positions[r]] = x[r]. A slot of 0xffffffff stores nothing.

use crate::{Call, args};

args! {
    pub struct KvAppendArgs { rows: u32, dim: u32, context: u32 }
}

/// # Safety
/// See [`crate::Kernel`]. No two rows have one slot and position.
pub unsafe fn kv_append(call: &Call<'_>) {
    let a: KvAppendArgs = call.args();
    let (dim, context) = (a.dim as usize, a.context as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (x, positions, slots) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<u32>()) };
    for r in call.share(a.rows as usize) {
        if slots[r] != u32::MAX {
            let position = positions[r] as usize;
            assert!(position < context, "position {position} of {context}");
            let at = (slots[r] as usize * context + position) * dim;
            // SAFETY: this row's place alone, by this function's contract.
            let place = unsafe { call.bufs[3].write::<f32>(at..at + dim) };
            place.copy_from_slice(&x[r * dim..][..dim]);
        }
    }
}
