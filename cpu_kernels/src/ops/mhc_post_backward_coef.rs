//! Gradient of `mhc_post` with respect to its coefficients, first stage, over the elements of block b in runs of 1024:
//! partial[b] = (sum of f * dy_i for each i, then sum of X_j * dy_i for each i, j). `sum_rows` adds the blocks.

use super::streams::chunks;
use crate::simd::math::{BLOCK, dot};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MhcPostBackwardCoefArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post_backward_coef(call: &Call<'_>) {
    let a: MhcPostBackwardCoefArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    let width = streams * (streams + 1);
    // SAFETY: the contract of `Kernel`.
    let (x, f, dy) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read()) };
    for block in call.share(n.div_ceil(BLOCK)) {
        // SAFETY: the contract of `Kernel`; this part writes its blocks alone.
        let partial = unsafe { call.bufs[3].write(block * width..(block + 1) * width) };
        let part = block * BLOCK..n.min((block + 1) * BLOCK);
        at_level!(call.level, body,
            (n: usize, streams: usize, part: Range<usize>, x: &[f32], f: &[f32], dy: &[f32], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(n: usize, streams: usize, part: Range<usize>, x: &[f32], f: &[f32], dy: &[f32], partial: &mut [f32]) {
    partial.fill(0.0);
    let (post, res) = partial.split_at_mut(streams);
    for chunk in chunks(part) {
        for i in 0..streams {
            let dy = &dy[i * n..][chunk.clone()];
            post[i] += dot(&f[chunk.clone()], dy);
            for j in 0..streams {
                res[i * streams + j] += dot(&x[j * n..][chunk.clone()], dy);
            }
        }
    }
}
