//! Notes the tokens that a sequence holds: seen[slots[r]][ids[r]] = 1. A slot or an id beyond `seen`, such as
//! 0xffffffff, notes nothing.

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
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (ids, slots, seen) = unsafe {
        let seen = call.bufs[2].write::<u32>(0..call.bufs[2].len::<u32>());
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<u32>(), seen)
    };
    for (id, slot) in ids.iter().zip(slots).take(a.rows as usize) {
        let row = seen.chunks_exact_mut(a.vocab as usize).nth(*slot as usize);
        if let Some(seen) = row.and_then(|row| row.get_mut(*id as usize)) {
            *seen = 1;
        }
    }
}
