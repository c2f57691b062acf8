//! y[i] = scale * x for each of `streams` residual streams of n elements.

use super::streams::{CHUNK, chunks, combine};
use crate::{Call, args};

args! {
    pub struct MhcExpandArgs { n: u32, streams: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_expand(call: &Call<'_>) {
    let a: MhcExpandArgs = call.args();
    let n = a.n as usize;
    // SAFETY: the contract of `Kernel`.
    let x = unsafe { call.bufs[0].read::<f32>() };
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        for i in 0..a.streams as usize {
            // SAFETY: the contract of `Kernel`; this part writes its elements of each stream alone.
            let y = unsafe { call.bufs[1].write(i * n + chunk.start..i * n + chunk.end) };
            combine(call.level, 0.0, y, &[(a.scale, &x[chunk.clone()])]);
        }
    }
}
