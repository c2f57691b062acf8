//! y = x, in vectors of four.

use crate::simd::math::LANES;
use crate::{Call, args};

args! {
    pub struct ProbeCopyArgs { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn probe_copy(call: &Call<'_>) {
    let part = call.share_blocks(4 * call.args::<ProbeCopyArgs>().n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (x, y) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(part.clone())) };
    y.copy_from_slice(&x[part]);
}
