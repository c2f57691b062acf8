//! Rows to the places of their assignments: y[place[a]] = x[a / k] for each assignment a of `n`. `place` has each place once.

use crate::{Call, args};

args! {
    pub struct MoeDispatchArgs { n: u32, dim: u32, k: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_dispatch(call: &Call<'_>) {
    let a: MoeDispatchArgs = call.args();
    let [n, dim, k] = [a.n, a.dim, a.k].map(|n| n as usize);
    let mine = call.share(n);
    // SAFETY: the contract of `Kernel`; this part writes its places alone.
    let (x, place, y) = unsafe {
        let y = call.bufs[2].write::<f32>(mine.start * dim..mine.end * dim);
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), y)
    };
    for (a, place) in place[..n].iter().enumerate().filter(|(_, place)| mine.contains(&(**place as usize))) {
        let to = (*place as usize - mine.start) * dim;
        y[to..to + dim].copy_from_slice(&x[a / k * dim..][..dim]);
    }
}
