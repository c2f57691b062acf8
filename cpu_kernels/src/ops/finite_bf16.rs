//! partial[offset + b] = 0, or NaN if one of block b of 4096 bf16 values of x is not finite.

use crate::simd::math::BLOCK;
use crate::{Call, args, at_level};

args! {
    pub struct FiniteBf16Args { n: u32, offset: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn finite_bf16(call: &Call<'_>) {
    let a: FiniteBf16Args = call.args();
    let (n, offset) = (a.n as usize, a.offset as usize);
    for block in call.share(n.div_ceil(BLOCK)) {
        let elements = block * BLOCK..n.min((block + 1) * BLOCK);
        let at = offset + block;
        // SAFETY: the contract of `Kernel`; this part writes its partial results alone.
        let (x, partial) = unsafe { (&call.bufs[0].read::<u16>()[elements], call.bufs[1].write::<f32>(at..at + 1)) };
        at_level!(call.level, body, (x: &[u16], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(x: &[u16], partial: &mut [f32]) {
    let most = x.iter().fold(0, |most, bits| most.max(bits & 0x7fff));
    partial[0] = if most < 0x7f80 { 0.0 } else { f32::NAN };
}
