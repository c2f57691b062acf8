//! y = a + b.

use crate::simd::math::LANES;
use crate::{Call, args, at_level};

args! {
    pub struct AddArgs { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn add(call: &Call<'_>) {
    let part = call.share_blocks(call.args::<AddArgs>().n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (a, b, y) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(part.clone())) };
    let (a, b) = (&a[part.clone()], &b[part]);
    at_level!(call.level, body, (a: &[f32], b: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = a + b;
    }
}
