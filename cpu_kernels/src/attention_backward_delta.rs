//! First step of the gradient of `attention`: delta = sum over head_dim of y * dy (FlashAttention, Dao et al. 2022).

use crate::{Call, args};

args! {
    pub struct AttentionBackwardDeltaArgs { batch: u32, seq: u32, heads: u32, head_dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn attention_backward_delta(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
