//! Notes the tokens that a sequence holds: seen[slots[r]][ids[r]] = 1. A slot of 0xffffffff notes nothing.

use crate::{Call, args};

args! {
    pub struct MarkSeenArgs { rows: u32, vocab: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mark_seen(call: &Call<'_>) {
    let a: MarkSeenArgs = call.args();
    if call.part != 0 {
        return; // Two rows may note the same token.
    }
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (ids, slots) = unsafe { (call.bufs[0].read::<u32>(), call.bufs[1].read::<u32>()) };
    for (id, slot) in ids.iter().zip(slots).take(a.rows as usize) {
        if *slot != u32::MAX {
            assert!(*id < a.vocab, "token {id} of {}", a.vocab);
            let at = *slot as usize * a.vocab as usize + *id as usize;
            // SAFETY: one part alone writes.
            unsafe { call.bufs[2].write::<u32>(at..at + 1)[0] = 1 };
        }
    }
}
