//! mHC-lite coefficients (arXiv 2512.24880, 2601.05732) from a sub-layer's parameters.
//!
//! Parameters: N=2 alpha_logit, pre_logits[2], pre_bias[2], post_logits[2], post_bias[2] (9); N=4 res_logits[24], then the same
//! four of 4 each (40). Coefficients: h_pre[N] = sigmoid(pre_logits + pre_bias), h_post[N] = 2 sigmoid(post_logits + post_bias),
//! H_res[N][N], doubly stochastic by construction: N=2 [[a, 1-a], [1-a, a]] with a = sigmoid(alpha_logit); N=4
//! sum of softmax(res_logits)[k] P_k over the permutations of 4 in lexicographic order, P_k[i][perm_k[i]] = 1.

use crate::simd::math::{exp, max, sigmoid, sum};
use crate::{Call, args};

args! {
    pub struct MhcWeightsArgs { streams: u32 }
}

/// Number of permutations of 4 streams.
const PERMUTATIONS: usize = 24;

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When there are neither 2 nor 4 streams.
pub unsafe fn mhc_weights(call: &Call<'_>) {
    let n = call.args::<MhcWeightsArgs>().streams as usize;
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (p, coef) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(0..n * (n + 2))) };
    let (residual, rest) = p.split_at(residual_params(n));
    let (h, res) = coef.split_at_mut(2 * n);
    for i in 0..n {
        h[i] = sigmoid(rest[i] + rest[n + i]);
        h[n + i] = 2.0 * sigmoid(rest[2 * n + i] + rest[3 * n + i]);
    }
    if n == 2 {
        let a = sigmoid(residual[0]);
        res.copy_from_slice(&[a, 1.0 - a, 1.0 - a, a]);
        return;
    }
    res.fill(0.0);
    for (weight, permutation) in softmax(residual).iter().zip(permutations()) {
        for (i, j) in permutation.into_iter().enumerate() {
            res[4 * i + j] += weight;
        }
    }
}

/// How many parameters make H_res.
pub(crate) fn residual_params(streams: usize) -> usize {
    match streams {
        2 => 1,
        4 => PERMUTATIONS,
        n => panic!("mHC has 2 or 4 residual streams, not {n}"),
    }
}

pub(crate) fn softmax(logits: &[f32]) -> [f32; PERMUTATIONS] {
    let mut weights = [0.0; PERMUTATIONS];
    let top = max(logits);
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = exp(logit - top);
    }
    let total = sum(&weights);
    weights.map(|weight| weight / total)
}

/// The permutations of 0..4 in lexicographic order.
pub(crate) fn permutations() -> impl Iterator<Item = [usize; 4]> {
    (0..256).map(|k| [k >> 6, k >> 4 & 3, k >> 2 & 3, k & 3]).filter(|p| (1..4).all(|i| !p[..i].contains(&p[i])))
}
