//! mHC-lite coefficients (arXiv 2512.24880, 2601.05732) from a sub-layer's parameters.
//!
//! Parameters: N=2 alpha_logit, pre_logits[2], pre_bias[2], post_logits[2], post_bias[2] (9); N=4 res_logits[24], then the same
//! four of 4 each (40). Coefficients: h_pre[N] = sigmoid(pre_logits + pre_bias), h_post[N] = 2 sigmoid(post_logits + post_bias),
//! H_res[N][N], doubly stochastic by construction: N=2 [[a, 1-a], [1-a, a]] with a = sigmoid(alpha_logit); N=4
//! sum of softmax(res_logits)[k] P_k over the permutations of 4 in lexicographic order, P_k[i][perm_k[i]] = 1.

use crate::{Call, args};

args! {
    pub struct MhcWeightsArgs { streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_weights(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
