//! Lion (Chen et al., arXiv 2302.06675). w = w (1 - lr wd) - lr sign(beta1 m + (1-beta1) g), then m = beta2 m + (1-beta2) g, with
//! g = gradient * ctl[0], lr = args.lr * step[0], sign(0) = 0. Nothing moves when ctl[1] is set.

use crate::simd::math::LANES;
use crate::{Call, args, at_level};

args! {
    pub struct LionArgs { n: u32, lr: f32, beta1: f32, beta2: f32, weight_decay: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn lion(call: &Call<'_>) {
    let a: LionArgs = call.args();
    let part = call.share_blocks(a.n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (g, ctl, step, w, m) = unsafe {
        let [w, m] = [3, 4].map(|i| call.bufs[i].write(part.clone()));
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), w, m)
    };
    let (a, g) = (&a, &g[part]);
    at_level!(call.level, body, (a: &LionArgs, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [f32]));
}

#[inline(always)]
pub(super) fn body(a: &LionArgs, g: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32], m: &mut [f32]) {
    let (factor, lr) = (ctl[0], a.lr * step[0]);
    if ctl[1] != 0.0 {
        return;
    }
    for ((w, m), g) in w.iter_mut().zip(m).zip(g) {
        let g = g * factor;
        let direction = a.beta1 * *m + (1.0 - a.beta1) * g;
        let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
        *w = *w * (1.0 - lr * a.weight_decay) - lr * sign;
        *m = a.beta2 * *m + (1.0 - a.beta2) * g;
    }
}
