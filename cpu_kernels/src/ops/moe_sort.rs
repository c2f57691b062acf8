//! Sorts assignments of rows to experts by expert, equal ones in order: place[a] is where assignment a comes, and those of expert
//! e are from starts[e] up to starts[e + 1]. starts has experts + 1 elements. Each of `chosen` is an expert.

use crate::{Call, args};

args! {
    pub struct MoeSortArgs { n: u32, experts: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_sort(call: &Call<'_>) {
    let a: MoeSortArgs = call.args();
    let (n, experts) = (a.n as usize, a.experts as usize);
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (chosen, place, starts) = unsafe {
        (call.bufs[0].read::<u32>(), call.bufs[1].write::<u32>(0..n), call.bufs[2].write::<u32>(0..experts + 1))
    };
    let chosen = &chosen[..n];
    starts.fill(0);
    chosen.iter().for_each(|e| starts[1..][*e as usize] += 1);
    (0..experts).for_each(|e| starts[e + 1] += starts[e]);
    for (place, e) in place.iter_mut().zip(chosen) {
        *place = starts[*e as usize];
        starts[*e as usize] += 1;
    }
    // Each start is now that of the next expert.
    starts.copy_within(0..experts, 1);
    starts[0] = 0;
}
