//! First step of the gradient of `attention`: delta = sum over head_dim of y * dy (FlashAttention, Dao et al. 2022). It is put
//! behind lse, so that what follows reads both from one buffer: a browser allows an op eight.

use crate::simd::math::dot;
use crate::{Call, args, at_level};

args! {
    pub struct AttentionBackwardDeltaArgs { batch: u32, seq: u32, heads: u32, head_dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_delta(call: &Call<'_>) {
    let a: AttentionBackwardDeltaArgs = call.args();
    let rows = a.batch as usize * a.heads as usize * a.seq as usize;
    let part = call.share(rows);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (y, dy, lse, [to_lse, delta]) = unsafe {
        let stats = [0, rows].map(|first| call.bufs[3].write(first + part.start..first + part.end));
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read::<f32>(), stats)
    };
    to_lse.copy_from_slice(&lse[part.clone()]);
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
