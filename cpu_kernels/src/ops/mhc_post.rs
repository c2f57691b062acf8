//! Output of a sub-layer: Y_i = sum over j of H_res[i][j] X_j + h_post[i] f.

use super::streams::{CHUNK, Coef, MAX_STREAMS, chunks, combine};
use crate::{Call, args};
use std::array;

args! {
    pub struct MhcPostArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post(call: &Call<'_>) {
    let a: MhcPostArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (coef, x, f) = unsafe { (call.bufs[0].read(), call.bufs[1].read::<f32>(), call.bufs[2].read::<f32>()) };
    let coef = Coef::new(streams, coef);
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        for i in 0..streams {
            let terms: [_; MAX_STREAMS + 1] = array::from_fn(|j| {
                let stream = if j < streams { &x[j * n + chunk.start..j * n + chunk.end] } else { &f[chunk.clone()] };
                (if j < streams { coef.res(i, j) } else { coef.post(i) }, stream)
            });
            // SAFETY: the contract of `Kernel`; this part writes its elements of each stream alone.
            let y = unsafe { call.bufs[3].write(i * n + chunk.start..i * n + chunk.end) };
            combine(call.level, 0.0, y, &terms[..streams + 1]);
        }
    }
}
