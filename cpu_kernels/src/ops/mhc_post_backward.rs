//! Gradient of `mhc_post` with respect to streams and f: dx_j = sum over i of H_res[i][j] dy_i, df = sum over i of h_post[i] dy_i.

use super::streams::{CHUNK, Coef, MAX_STREAMS, chunks, combine};
use crate::{Call, args};
use std::array;

args! {
    pub struct MhcPostBackwardArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post_backward(call: &Call<'_>) {
    let a: MhcPostBackwardArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (coef, dy) = unsafe { (call.bufs[0].read(), call.bufs[1].read::<f32>()) };
    let coef = Coef::new(streams, coef);
    for chunk in chunks(call.share_blocks(n, CHUNK)) {
        let stream = |i: usize| &dy[i * n + chunk.start..i * n + chunk.end];
        let terms = |factor: &dyn Fn(usize) -> f32| -> [(f32, &[f32]); MAX_STREAMS] {
            array::from_fn(|i| if i < streams { (factor(i), stream(i)) } else { (0.0, &[][..]) })
        };
        for j in 0..streams {
            // SAFETY: the contract of `Kernel`; this part writes its elements of each stream alone.
            let dx = unsafe { call.bufs[2].write(j * n + chunk.start..j * n + chunk.end) };
            combine(call.level, 0.0, dx, &terms(&|i| coef.res(i, j))[..streams]);
        }
        // SAFETY: as above.
        let df = unsafe { call.bufs[3].write(chunk.clone()) };
        combine(call.level, 0.0, df, &terms(&|i| coef.post(i))[..streams]);
    }
}
