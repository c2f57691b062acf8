//! Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)).

use crate::simd::math::{LANES, sigmoid};
use crate::{Call, args, at_level};

args! {
    pub struct SwigluArgs { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu(call: &Call<'_>) {
    let part = call.share_blocks(call.args::<SwigluArgs>().n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (gate, up, y) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(part.clone())) };
    let (gate, up) = (&gate[part.clone()], &up[part]);
    at_level!(call.level, body, (gate: &[f32], up: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * sigmoid(*gate) * up;
    }
}
