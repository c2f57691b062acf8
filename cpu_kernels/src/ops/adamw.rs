//! AdamW (Loshchilov & Hutter 2019). m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2,
//! w = w (1 - lr wd) - lr (m / step[1]) / (sqrt(v / step[2]) + eps), with g = gradient * ctl[0], lr = args.lr * step[0], and
//! step[1], step[2] the bias corrections 1 - beta^t. Nothing moves when ctl[1] is set.

use crate::simd::math::LANES;
use crate::{Call, args, at_level};

args! {
    pub struct AdamwArgs { n: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn adamw(call: &Call<'_>) {
    let a: AdamwArgs = call.args();
    let part = call.share_blocks(a.n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (g, ctl, step, w, m, v) = unsafe {
        let [w, m, v] = [3, 4, 5].map(|i| call.bufs[i].write(part.clone()));
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), w, m, v)
    };
    let (a, g) = (&a, &g[part]);
    at_level!(call.level, body,
        (a: &AdamwArgs, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [f32], v: &mut [f32]));
}

#[inline(always)]
pub(super) fn body(a: &AdamwArgs, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let (factor, lr) = (ctl[0], a.lr * step[0]);
    if ctl[1] != 0.0 {
        return;
    }
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * factor;
        *m = a.beta1 * *m + (1.0 - a.beta1) * g;
        *v = a.beta2 * *v + (1.0 - a.beta2) * (g * g);
        *w = *w * (1.0 - lr * a.weight_decay) - lr * (*m / step[1]) / ((*v / step[2]).sqrt() + a.eps);
    }
}
