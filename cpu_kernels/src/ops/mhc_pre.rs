//! Input of a sub-layer: u = sum over i of h_pre[i] X_i; `coef` as written by `mhc_weights`.

use super::streams::{CHUNK, Coef, MAX_STREAMS, chunks, combine};
use crate::{Call, args};
use std::array;

args! {
    pub struct MhcPreArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre(call: &Call<'_>) {
    let a: MhcPreArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (coef, x) = unsafe { (call.bufs[0].read(), call.bufs[1].read::<f32>()) };
    let coef = Coef::new(streams, coef);
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        let terms: [_; MAX_STREAMS] = array::from_fn(|i| {
            if i < streams { (coef.pre(i), &x[i * n + chunk.start..i * n + chunk.end]) } else { (0.0, &[][..]) }
        });
        // SAFETY: the contract of `Kernel`; this part writes its elements alone.
        let u = unsafe { call.bufs[2].write(chunk) };
        combine(call.level, 0.0, u, &terms[..streams]);
    }
}
