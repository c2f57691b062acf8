//! y = scale * (sum of the `streams` residual streams of n elements, in order).

use super::streams::{CHUNK, chunks, combine};
use crate::{Call, args};

args! {
    pub struct MhcCollapseArgs { n: u32, streams: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_collapse(call: &Call<'_>) {
    let a: MhcCollapseArgs = call.args();
    let n = a.n as usize;
    // SAFETY: the contract of `Kernel`.
    let x = unsafe { call.bufs[0].read::<f32>() };
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        // SAFETY: the contract of `Kernel`; this part writes its elements alone.
        let y = unsafe { call.bufs[1].write::<f32>(chunk.clone()) };
        y.fill(0.0);
        for i in 0..a.streams as usize {
            combine(call.level, 1.0, y, &[(1.0, &x[i * n + chunk.start..i * n + chunk.end])]);
        }
        y.iter_mut().for_each(|y| *y *= a.scale);
    }
}
