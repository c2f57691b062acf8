//! Gradient of `attention` with respect to k and v, summed over the query heads that share them:
//! p = exp(scale * q k - lse), dv = p^T dy, dk = scale * ds^T q with ds = p * (dy v - delta).

use crate::{Call, args};

args! {
    pub struct AttentionBackwardKvArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_kv(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
