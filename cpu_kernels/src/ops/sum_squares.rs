//! partial[offset + r * step + b] = sum of scale x^2 over block b of 4096 elements of piece r: n elements of x from
//! start + r * stride. With scale 1, the first stage of a norm; with scale 0 it is 0, or NaN if an element is not finite.

use crate::simd::math::{BLOCK, sum_of};
use crate::{Call, args, at_level};

args! {
    pub struct SumSquaresArgs { n: u32, rows: u32, start: u32, stride: u32, offset: u32, step: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum_squares(call: &Call<'_>) {
    let a: SumSquaresArgs = call.args();
    let blocks = (a.n as usize).div_ceil(BLOCK);
    assert!(a.rows <= 1 || a.step as usize >= blocks, "pieces {} blocks apart have {blocks}", a.step);
    for unit in call.share(a.rows as usize * blocks) {
        let (row, block) = (unit / blocks, unit % blocks);
        let (piece, at) =
            (a.start as usize + row * a.stride as usize, a.offset as usize + row * a.step as usize + block);
        let elements = piece + block * BLOCK..piece + (a.n as usize).min((block + 1) * BLOCK);
        // SAFETY: the contract of `Kernel`; this part writes its partial sums alone.
        let (x, partial) = unsafe { (&call.bufs[0].read::<f32>()[elements], call.bufs[1].write::<f32>(at..at + 1)) };
        let scale = a.scale;
        at_level!(call.level, body, (scale: f32, x: &[f32], partial: &mut [f32]));
    }
}

#[inline(always)]
fn body(scale: f32, x: &[f32], partial: &mut [f32]) {
    // In this order: with scale 0, the square of a large number would be infinite.
    partial[0] = sum_of([x], |[x]| scale * x * x);
}
