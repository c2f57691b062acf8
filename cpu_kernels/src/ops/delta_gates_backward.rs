//! Gradients of `delta_gates`, whose results are y: with b = y[r][h], dx[r][h] = dy[r][h] * b * (1 - b); with g = y[r][heads + h]
//! and dg its gradient, dx[r][heads + h] = -dg * exp(p[h]) * sigmoid(x[r][heads + h] + p[heads + h]). dp[h] += sum over r of
//! dg * g, and dp[heads + h] += sum over r of dx[r][heads + h], rows in order.

use crate::simd::math::{exp, sigmoid};
use crate::{Call, args};

args! {
    pub struct DeltaGatesBackwardArgs { rows: u32, heads: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn delta_gates_backward(call: &Call<'_>) {
    let a: DeltaGatesBackwardArgs = call.args();
    let (rows, heads) = (a.rows as usize, a.heads as usize);
    call.bufs[5].holds::<f32>(0, &[2, a.heads]);
    // SAFETY: the contract of `Kernel`.
    let [x, p, y, dy] = [0, 1, 2, 3].map(|i| unsafe { call.bufs[i].read::<f32>() });
    let dx = call.bufs[4].array::<f32>(0, &[a.rows, 2, a.heads]);
    let dp = call.bufs[5].array::<f32>(0, &[2, a.heads]);
    for h in call.share(heads) {
        let (mut to_rate, mut to_bias) = (0.0, 0.0);
        let rate = exp(p[h]);
        for r in 0..rows {
            let (write, forget) = (r * 2 * heads + h, r * 2 * heads + heads + h);
            let (b, dg) = (y[write], dy[forget]);
            let through = -dg * rate * sigmoid(x[forget] + p[heads + h]);
            // SAFETY: in the array; this part writes the columns of its heads alone.
            unsafe {
                *dx.add(write) = dy[write] * b * (1.0 - b);
                *dx.add(forget) = through;
            }
            to_rate += dg * y[forget];
            to_bias += through;
        }
        // SAFETY: as above.
        unsafe {
            *dp.add(h) += to_rate;
            *dp.add(heads + h) += to_bias;
        }
    }
}
