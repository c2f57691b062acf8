//! Gradient of `mhc_weights`: dp += J^T dcoef.

use super::streams::Coef;
use crate::ops::mhc_weights::{permutations, residual_params, softmax};
use crate::{Call, args};

args! {
    pub struct MhcWeightsBackwardArgs { streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When there are neither 2 nor 4 streams.
pub unsafe fn mhc_weights_backward(call: &Call<'_>) {
    let n = call.args::<MhcWeightsBackwardArgs>().streams as usize;
    if call.part != 0 {
        return;
    }
    let residual = residual_params(n);
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (p, coef, dcoef, dp) = unsafe {
        let dp = call.bufs[3].write::<f32>(0..residual + 4 * n);
        (call.bufs[0].read::<f32>(), call.bufs[1].read(), call.bufs[2].read(), dp)
    };
    let (coef, dcoef) = (Coef::new(n, coef), Coef::new(n, dcoef));
    let (dp_residual, dp_rest) = dp.split_at_mut(residual);
    for i in 0..n {
        let (pre, post) = (coef.pre(i), coef.post(i));
        let dpre = dcoef.pre(i) * pre * (1.0 - pre);
        let dpost = dcoef.post(i) * post * (1.0 - 0.5 * post);
        for (k, d) in [dpre, dpre, dpost, dpost].into_iter().enumerate() {
            dp_rest[k * n + i] += d;
        }
    }
    if n == 2 {
        let a = coef.res(0, 0);
        let da = (dcoef.res(0, 0) - dcoef.res(0, 1)) + (dcoef.res(1, 1) - dcoef.res(1, 0));
        dp_residual[0] += da * a * (1.0 - a);
        return;
    }
    let weights = softmax(&p[..residual]);
    let mut dweights = [0.0; 24];
    for (d, permutation) in dweights.iter_mut().zip(permutations()) {
        *d = (0..4).map(|i| dcoef.res(i, permutation[i])).sum();
    }
    let mean: f32 = weights.iter().zip(&dweights).map(|(w, d)| w * d).sum();
    for ((dp, w), d) in dp_residual.iter_mut().zip(&weights).zip(&dweights) {
        *dp += w * (d - mean);
    }
}
