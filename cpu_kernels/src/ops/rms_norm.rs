//! RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * w. Keeps rstd = 1 / sqrt(...) for backward. A row whose
//! sum of squares overflows is NaN.

use crate::simd::math::dot;
use crate::{Call, args, at_level};

args! {
    pub struct RmsNormArgs { rows: u32, dim: u32, eps: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm(call: &Call<'_>) {
    let a: RmsNormArgs = call.args();
    let dim = a.dim as usize;
    let part = call.share(a.rows as usize);
    let elements = part.start * dim..part.end * dim;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, w, y, rstd) = unsafe {
        let (y, rstd) = (call.bufs[2].write(elements.clone()), call.bufs[3].write(part));
        (call.bufs[0].read(), call.bufs[1].read(), y, rstd)
    };
    let (x, w, eps) = (&x[elements], &w[..dim], a.eps);
    at_level!(call.level, normalize, (eps: f32, x: &[f32], w: &[f32], y: &mut [f32], rstd: &mut [f32]));
}

#[inline(always)]
pub(super) fn normalize(eps: f32, x: &[f32], w: &[f32], y: &mut [f32], rstd: &mut [f32]) {
    let dim = w.len();
    for ((x, y), rstd) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).zip(rstd) {
        let r = 1.0 / (dot(x, x) / dim as f32 + eps).sqrt();
        // Only an infinite sum gives 0, and a row of zeros would hide it.
        let r = if r == 0.0 { f32::NAN } else { r };
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * r * w;
        }
        *rstd = r;
    }
}
