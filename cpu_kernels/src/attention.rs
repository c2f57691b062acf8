//! Causal grouped-query attention: y = softmax(scale * q k^T) v. Query head h reads key-value head h / (heads / kv_heads).
//! Keeps lse = log(sum(exp(scores))) for backward.

use crate::{Call, args};

args! {
    pub struct AttentionArgs { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
