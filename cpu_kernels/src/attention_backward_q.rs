//! Gradient of `attention` with respect to q: p = exp(scale * q k - lse), ds = p * (dy v - delta), dq = scale * ds k.

use crate::{Call, args};

args! {
    pub struct AttentionBackwardQArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_q(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
