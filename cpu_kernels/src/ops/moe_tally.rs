//! Counts the assignments of each expert: load[e] += starts[e + 1] - starts[e].

use crate::{Call, args};

args! {
    pub struct MoeTallyArgs { experts: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_tally(call: &Call<'_>) {
    let a: MoeTallyArgs = call.args();
    if call.part != 0 {
        return;
    }
    let experts = a.experts as usize;
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (starts, load) = unsafe { (call.bufs[0].read::<u32>(), call.bufs[1].write::<f32>(0..experts)) };
    for (load, pair) in load.iter_mut().zip(starts[..experts + 1].windows(2)) {
        *load += pair[1].wrapping_sub(pair[0]) as f32;
    }
}
