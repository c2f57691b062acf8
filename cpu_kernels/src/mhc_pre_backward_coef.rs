//! Gradient of `mhc_pre` with respect to h_pre, first stage: partial[b][i] = sum of X_i * du over the elements of block b.
//! `sum_rows` adds the blocks.

use crate::math::{BLOCK, dot};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MhcPreBackwardCoefArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre_backward_coef(call: &Call<'_>) {
    let a: MhcPreBackwardCoefArgs = call.args();
    let (n, streams) = (a.n as usize, a.streams as usize);
    // SAFETY: the contract of `Kernel`.
    let (x, du) = unsafe { (call.bufs[0].read(), call.bufs[1].read()) };
    for block in call.share(n.div_ceil(BLOCK)) {
        // SAFETY: the contract of `Kernel`; this part writes its blocks alone.
        let partial = unsafe { call.bufs[2].write(block * streams..(block + 1) * streams) };
        let part = block * BLOCK..n.min((block + 1) * BLOCK);
        at_level!(call.level, body, (n: usize, part: Range<usize>, x: &[f32], du: &[f32], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(n: usize, part: Range<usize>, x: &[f32], du: &[f32], partial: &mut [f32]) {
    for (i, partial) in partial.iter_mut().enumerate() {
        *partial = dot(&x[i * n..][part.clone()], &du[part.clone()]);
    }
}
