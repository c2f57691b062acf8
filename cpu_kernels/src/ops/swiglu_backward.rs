//! Gradient of `swiglu`: dup = dy * silu(gate), dgate = dy * up * silu'(gate). With `squared` silu(x) is relu(x)^2, and
//! silu'(x) is 2 relu(x).

use super::swiglu::positive;
use crate::simd::math::{LANES, sigmoid};
use crate::{Call, args, at_level};

args! {
    pub struct SwigluBackwardArgs { n: u32, squared: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu_backward(call: &Call<'_>) {
    let a: SwigluBackwardArgs = call.args();
    let part = call.share_blocks(a.n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (gate, up, dy, dgate, dup) = unsafe {
        let [dgate, dup] = [3, 4].map(|i| call.bufs[i].write(part.clone()));
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), dgate, dup)
    };
    let (gate, up, dy) = (&gate[part.clone()], &up[part.clone()], &dy[part]);
    match a.squared {
        0 => {
            at_level!(call.level, body, (gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]));
        }
        _ => {
            at_level!(call.level, squared, (gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]));
        }
    }
}

#[inline(always)]
pub(super) fn body(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
        let s = sigmoid(*gate);
        *dup = dy * (gate * s);
        *dgate = dy * up * (s * (1.0 + gate * (1.0 - s)));
    }
}

#[inline(always)]
pub(super) fn squared(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
        let positive = positive(*gate);
        *dup = dy * (positive * positive);
        *dgate = dy * up * (2.0 * positive);
    }
}
