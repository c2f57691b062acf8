//! Gradient of `mhc_pre` with respect to the streams: dx_i = beta * dx_i + h_pre[i] * du.

use super::streams::{CHUNK, Coef, chunks, combine};
use crate::{Call, args};

args! {
    pub struct MhcPreBackwardArgs { n: u32, streams: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre_backward(call: &Call<'_>) {
    let a: MhcPreBackwardArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (coef, du) = unsafe { (call.bufs[0].read(), call.bufs[1].read::<f32>()) };
    let coef = Coef::new(streams, coef);
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        for i in 0..streams {
            // SAFETY: the contract of `Kernel`; this part writes its elements of each stream alone.
            let dx = unsafe { call.bufs[2].write(i * n + chunk.start..i * n + chunk.end) };
            combine(call.level, a.beta, dx, &[(coef.pre(i), &du[chunk.clone()])]);
        }
    }
}
