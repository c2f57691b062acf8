//! y[0] = beta * y[0] + scale * sum(x), the sum in blocks of 1024, then over the blocks.

use crate::simd::math::{self, keep};
use crate::{Call, args, at_level};

args! {
    pub struct SumArgs { n: u32, scale: f32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum(call: &Call<'_>) {
    let a: SumArgs = call.args();
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes.
    let (x, y) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(0..1)) };
    let (a, x, y) = (&a, &x[..a.n as usize], &mut y[0]);
    at_level!(call.level, body, (a: &SumArgs, x: &[f32], y: &mut f32));
}

#[inline(always)]
fn body(a: &SumArgs, x: &[f32], y: &mut f32) {
    let total: f32 = x.chunks(1024).map(math::sum).sum();
    *y = keep(a.beta, *y) + a.scale * total;
}
