//! y = value.

use crate::simd::math::LANES;
use crate::{Call, args};

args! {
    pub struct FillArgs { n: u32, value: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn fill(call: &Call<'_>) {
    let a: FillArgs = call.args();
    let part = call.share_blocks(a.n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let y = unsafe { call.bufs[0].write::<f32>(part) };
    y.fill(a.value);
}
