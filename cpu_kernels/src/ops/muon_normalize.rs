//! Muon: each of `batch` matrices of n elements is divided by its Frobenius norm + 1e-7; `partial` holds ceil(n / 4096) sums of
//! squares per matrix, from `sum_squares`.

use crate::simd::math::{BLOCK, sum};
use crate::{Call, args, at_level};

args! {
    pub struct MuonNormalizeArgs { n: u32, batch: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_normalize(call: &Call<'_>) {
    let a: MuonNormalizeArgs = call.args();
    let n = a.n as usize;
    let blocks = n.div_ceil(BLOCK);
    // SAFETY: the contract of `Kernel`.
    let partial = unsafe { call.bufs[0].read::<f32>() };
    for unit in call.share(a.batch as usize * blocks) {
        let (matrix, block) = (unit / blocks, unit % blocks);
        // SAFETY: the contract of `Kernel`; this part writes its blocks alone.
        let x = unsafe { call.bufs[1].write(matrix * n + block * BLOCK..matrix * n + n.min((block + 1) * BLOCK)) };
        let partial = &partial[matrix * blocks..(matrix + 1) * blocks];
        at_level!(call.level, body, (partial: &[f32], x: &mut [f32]));
    }
}

#[inline(always)]
fn body(partial: &[f32], x: &mut [f32]) {
    let norm = sum(partial).sqrt() + 1e-7;
    for x in x {
        *x /= norm;
    }
}
