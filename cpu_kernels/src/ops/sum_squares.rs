//! partial[offset + b] = sum of scale x^2 over block b of 4096 elements. With rows > 1, x is `rows` equal pieces of n elements,
//! each with its own ceil(n / 4096) blocks. With scale 1, the first stage of a norm; with scale 0 it is 0, or NaN if an element is
//! not finite.

use crate::simd::math::{BLOCK, sum_of};
use crate::{Call, args, at_level};

args! {
    pub struct SumSquaresArgs { n: u32, rows: u32, offset: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum_squares(call: &Call<'_>) {
    let a: SumSquaresArgs = call.args();
    let (n, offset) = (a.n as usize, a.offset as usize);
    let blocks = n.div_ceil(BLOCK);
    let part = call.share(a.rows as usize * blocks);
    // SAFETY: the contract of `Kernel`; this part writes its partial sums alone.
    let (x, partial) = unsafe { (call.bufs[0].read(), call.bufs[1].write(offset + part.start..offset + part.end)) };
    let (first, scale) = (part.start, a.scale);
    at_level!(call.level, body, (n: usize, first: usize, scale: f32, x: &[f32], partial: &mut [f32]));
}

#[inline(always)]
fn body(n: usize, first: usize, scale: f32, x: &[f32], partial: &mut [f32]) {
    let blocks = n.div_ceil(BLOCK);
    for (i, partial) in partial.iter_mut().enumerate() {
        let (row, block) = ((first + i) / blocks, (first + i) % blocks);
        let x = &x[row * n + block * BLOCK..row * n + n.min((block + 1) * BLOCK)];
        // In this order: with scale 0, the square of a large number would be infinite.
        *partial = sum_of([x], |[x]| scale * x * x);
    }
}
