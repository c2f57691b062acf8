//! First step of the gradient of `attention`: delta = sum over head_dim of y * dy (FlashAttention, Dao et al. 2022).

use crate::simd::math::dot;
use crate::{Call, args, at_level};

args! {
    pub struct AttentionBackwardDeltaArgs { batch: u32, seq: u32, heads: u32, head_dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_delta(call: &Call<'_>) {
    let a: AttentionBackwardDeltaArgs = call.args();
    let part = call.share(a.batch as usize * a.heads as usize * a.seq as usize);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (y, dy, delta) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(part.clone())) };
    let (a, first) = (&a, part.start);
    at_level!(call.level, body,
        (a: &AttentionBackwardDeltaArgs, first: usize, y: &[f32], dy: &[f32], delta: &mut [f32]));
}

/// y, dy: (batch, seq, heads, head_dim); delta: (batch, heads, seq), from element `first`
#[inline(always)]
fn body(a: &AttentionBackwardDeltaArgs, first: usize, y: &[f32], dy: &[f32], delta: &mut [f32]) {
    let (seq, heads, head_dim) = (a.seq as usize, a.heads as usize, a.head_dim as usize);
    for (i, delta) in delta.iter_mut().enumerate() {
        let (pair, t) = ((first + i) / seq, (first + i) % seq);
        let (b, h) = (pair / heads, pair % heads);
        let start = ((b * seq + t) * heads + h) * head_dim;
        *delta = dot(&y[start..start + head_dim], &dy[start..start + head_dim]);
    }
}
