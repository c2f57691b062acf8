//! What a delta rule forgets and how much it writes, for each row and head (Gated Delta Networks, Yang, Kautz and Hatamizadeh
//! 2024): y[r][h] = sigmoid(x[r][h]), the strength of writing, and y[r][heads + h] = -exp(p[h]) * softplus(x[r][heads + h] +
//! p[heads + h]), the logarithm of what remains of the state.

use crate::simd::math::{exp, sigmoid};
use crate::{Call, args};

args! {
    pub struct DeltaGatesArgs { rows: u32, heads: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn delta_gates(call: &Call<'_>) {
    let a: DeltaGatesArgs = call.args();
    let (part, heads) = (call.share(a.rows as usize), a.heads as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, p, y) = unsafe {
        let y = call.bufs[2].write::<f32>(part.start * 2 * heads..part.end * 2 * heads);
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), y)
    };
    let x = &x[part.start * 2 * heads..];
    for (i, y) in y.iter_mut().enumerate() {
        let c = i % (2 * heads);
        *y = if c < heads { sigmoid(x[i]) } else { -exp(p[c - heads]) * softplus(x[i] + p[c]) };
    }
}

/// ln(1 + e^x)
fn softplus(x: f32) -> f32 {
    x.max(0.0) + exp(-x.abs()).ln_1p()
}
