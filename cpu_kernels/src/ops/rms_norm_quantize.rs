//! `rms_norm`, then `quantize_rows` of its result, which is not kept: the same codes, steps and rstd.

use super::rms_norm::normalize;
use crate::matrix::scratch::Scratch;
use crate::{Call, args, at_level, matrix::quantize};

args! {
    pub struct RmsNormQuantizeArgs { rows: u32, dim: u32, eps: f32 }
}

/// Values that are normalised before they are quantised, so few that they stay in the first-level cache; at least a row.
const AT_ONCE: usize = 4096;

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_quantize(call: &Call<'_>) {
    let a: RmsNormQuantizeArgs = call.args();
    let (rows, dim, eps) = (call.share(a.rows as usize), a.dim as usize, a.eps);
    let elements = rows.start * dim..rows.end * dim;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, w, xq, step, rstd) = unsafe {
        let (x, w) = (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>());
        let [step, rstd] = [3, 4].map(|i| call.bufs[i].write::<f32>(rows.clone()));
        (&x[elements.clone()], &w[..dim], call.bufs[2].write::<i8>(elements), step, rstd)
    };
    let some = (AT_ONCE / dim).max(1);
    let mut scratch = Scratch::of_thread();
    let [y] = scratch.slices([some * dim]);
    let chunks = x.chunks(some * dim).zip(xq.chunks_mut(some * dim));
    for ((x, xq), (step, rstd)) in chunks.zip(step.chunks_mut(some).zip(rstd.chunks_mut(some))) {
        let y = &mut y[..x.len()];
        at_level!(call.level, normalize, (eps: f32, x: &[f32], w: &[f32], y: &mut [f32], rstd: &mut [f32]));
        quantize::rows(call.level, y, dim, xq, step);
    }
}
