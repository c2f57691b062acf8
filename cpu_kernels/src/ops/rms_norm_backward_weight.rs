//! Gradient of `rms_norm` with respect to w, first stage: partial[b] = sum of dy * x * rstd over the 64 rows of block b.
//! `sum_rows` adds the blocks.

use crate::simd::math::ROW_BLOCK;
use crate::{Call, args, at_level};

args! {
    pub struct RmsNormBackwardWeightArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_backward_weight(call: &Call<'_>) {
    let a: RmsNormBackwardWeightArgs = call.args();
    let (rows, dim) = (a.rows as usize, a.dim as usize);
    // SAFETY: the contract of `Kernel`.
    let (x, rstd, dy) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<f32>()) };
    for block in call.share(rows.div_ceil(ROW_BLOCK)) {
        let part = block * ROW_BLOCK..rows.min((block + 1) * ROW_BLOCK);
        let elements = part.start * dim..part.end * dim;
        // SAFETY: the contract of `Kernel`; this part writes its blocks alone.
        let partial = unsafe { call.bufs[3].write(block * dim..(block + 1) * dim) };
        let (x, rstd, dy) = (&x[elements.clone()], &rstd[part], &dy[elements]);
        at_level!(call.level, body, (x: &[f32], rstd: &[f32], dy: &[f32], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(x: &[f32], rstd: &[f32], dy: &[f32], partial: &mut [f32]) {
    let dim = partial.len();
    partial.fill(0.0);
    for ((x, dy), rstd) in x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(rstd) {
        for ((p, x), dy) in partial.iter_mut().zip(x).zip(dy) {
            *p += dy * x * rstd;
        }
    }
}
