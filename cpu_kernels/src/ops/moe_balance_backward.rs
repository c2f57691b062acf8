//! Gradient of `moe_balance`, in which the shares f count as constants: with p = softmax(logits[r]) and g = experts * f,
//! dlogits[r][e] = dvalue[0] / rows * p[e] * (g[e] - sum over i of p[i] * g[i]).

use super::experts::shares;
use super::moe_balance::{mean, top};
use crate::simd::math::exp;
use crate::{Call, args, at_level};

args! {
    pub struct MoeBalanceBackwardArgs { rows: u32, experts: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn moe_balance_backward(call: &Call<'_>) {
    let a: MoeBalanceBackwardArgs = call.args();
    let (part, experts) = (call.share(a.rows as usize), a.experts as usize);
    let own = part.start * experts..part.end * experts;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (logits, starts, dvalue, dlogits) = unsafe {
        let dlogits = call.bufs[3].write::<f32>(own.clone());
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].read::<f32>(), dlogits)
    };
    let (logits, starts, scale) = (&logits[own], &starts[..experts + 1], dvalue[0] / a.rows as f32);
    at_level!(call.level, body, (scale: f32, logits: &[f32], starts: &[u32], dlogits: &mut [f32]));
}

#[inline(always)]
fn body(scale: f32, logits: &[f32], starts: &[u32], dlogits: &mut [f32]) {
    let experts = starts.len() - 1;
    let shares = shares(starts, experts as f32);
    for (logits, dlogits) in logits.chunks_exact(experts).zip(dlogits.chunks_exact_mut(experts)) {
        let (mean, top) = (mean(logits, shares.clone()), top(logits));
        let total: f32 = logits.iter().map(|logit| exp(logit - top)).sum();
        for ((d, logit), share) in dlogits.iter_mut().zip(logits).zip(shares.clone()) {
            *d = scale * (exp(logit - top) / total) * (share - mean);
        }
    }
}
