//! Gradient of the weights of `moe_route` with respect to its logits: with s = sum over i of weights[r][i] * dweights[r][i],
//! dlogits[r][e] = beta * dlogits[r][e] + weights[r][j] * (dweights[r][j] - s) for the experts e = chosen[r][j], and
//! beta * dlogits[r][e] for the others.

use crate::simd::math::keep;
use crate::{Call, args};

args! {
    pub struct MoeRouteBackwardArgs { rows: u32, experts: u32, k: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_route_backward(call: &Call<'_>) {
    let a: MoeRouteBackwardArgs = call.args();
    let part = call.share(a.rows as usize);
    let (experts, k) = (a.experts as usize, a.k as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (chosen, weights, dweights, dlogits) = unsafe {
        let dlogits = call.bufs[3].write::<f32>(part.start * experts..part.end * experts);
        (call.bufs[0].read::<u32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<f32>(), dlogits)
    };
    for (r, dlogits) in part.zip(dlogits.chunks_exact_mut(experts)) {
        let own = r * k..(r + 1) * k;
        let (chosen, weights, dweights) = (&chosen[own.clone()], &weights[own.clone()], &dweights[own]);
        let s: f32 = weights.iter().zip(dweights).map(|(w, dw)| w * dw).sum();
        dlogits.iter_mut().for_each(|d| *d = keep(a.beta, *d));
        for ((e, w), dw) in chosen.iter().zip(weights).zip(dweights) {
            dlogits[*e as usize] += w * (dw - s);
        }
    }
}
