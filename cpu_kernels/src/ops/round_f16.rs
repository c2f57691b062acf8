//! y = x rounded to f16, half to even, and widened again; clamped to +-65504, the largest f16.
//!
//! What is stored as f16 is rounded while it is trained, so that storing it loses nothing. Below 2^-14 an f16 is a multiple
//! of 2^-24.

use crate::simd::math::LANES;
pub use crate::simd::math::round_f16 as round;
use crate::{Call, args, at_level};

args! {
    pub struct RoundF16Args { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn round_f16(call: &Call<'_>) {
    let part = call.share_blocks(call.args::<RoundF16Args>().n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (x, y) = unsafe { (call.bufs[0].read(), call.bufs[1].write(part.clone())) };
    let x = &x[part];
    at_level!(call.level, body, (x: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = round(*x);
    }
}
