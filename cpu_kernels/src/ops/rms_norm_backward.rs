//! Gradient of `rms_norm` with respect to x: with g = dy * w, dx = beta * dx + rstd * (g - x * rstd^2 * mean(g * x)).

use crate::simd::math::{keep, sum_of};
use crate::{Call, args, at_level};

args! {
    pub struct RmsNormBackwardArgs { rows: u32, dim: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_backward(call: &Call<'_>) {
    let a: RmsNormBackwardArgs = call.args();
    let dim = a.dim as usize;
    let part = call.share(a.rows as usize);
    let elements = part.start * dim..part.end * dim;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, w, rstd, dy, dx) = unsafe {
        let dx = call.bufs[4].write(elements.clone());
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), call.bufs[3].read(), dx)
    };
    let (x, w, rstd, dy, beta) = (&x[elements.clone()], &w[..dim], &rstd[part], &dy[elements], a.beta);
    at_level!(call.level, body, (beta: f32, x: &[f32], w: &[f32], rstd: &[f32], dy: &[f32], dx: &mut [f32]));
}

#[inline(always)]
fn body(beta: f32, x: &[f32], w: &[f32], rstd: &[f32], dy: &[f32], dx: &mut [f32]) {
    let dim = w.len();
    let rows = x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(rstd).zip(dx.chunks_exact_mut(dim));
    for (((x, dy), &rstd), dx) in rows {
        let mean = sum_of([dy, w, x], |[dy, w, x]| dy * w * x) / dim as f32;
        let along = rstd * rstd * mean;
        for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *dx = keep(beta, *dx) + rstd * (dy * w - x * along);
        }
    }
}
