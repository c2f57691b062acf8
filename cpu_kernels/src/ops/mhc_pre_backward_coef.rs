//! Gradient of `mhc_pre` with respect to h_pre, first stage: partial[b][i] = sum of X_i * du over the elements of block b,
//! in runs of 1024. `sum_rows` adds the blocks.

use super::streams::chunks;
use crate::simd::math::{BLOCK, dot};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MhcPreBackwardCoefArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre_backward_coef(call: &Call<'_>) {
    let a: MhcPreBackwardCoefArgs = call.args();
    let (n, width) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (x, du) = unsafe { (call.bufs[0].read(), call.bufs[1].read()) };
    for block in call.share(n.div_ceil(BLOCK)) {
        // SAFETY: the contract of `Kernel`; this part writes its blocks alone.
        let partial = unsafe { call.bufs[2].write(block * width..(block + 1) * width) };
        let part = block * BLOCK..n.min((block + 1) * BLOCK);
        at_level!(call.level, body, (n: usize, part: Range<usize>, x: &[f32], du: &[f32], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(n: usize, part: Range<usize>, x: &[f32], du: &[f32], partial: &mut [f32]) {
    partial.fill(0.0);
    for chunk in chunks(part) {
        for (i, partial) in partial.iter_mut().enumerate() {
            *partial += dot(&x[i * n..][chunk.clone()], &du[chunk.clone()]);
        }
    }
}
