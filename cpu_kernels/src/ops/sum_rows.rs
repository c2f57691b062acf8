//! Column sums: y[offset + c] = beta * y[offset + c] + sum over r of x[r][c], rows in order.

use crate::simd::math::{LANES, keep};
use crate::{Call, args, at_level};

args! {
    pub struct SumRowsArgs { rows: u32, cols: u32, offset: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum_rows(call: &Call<'_>) {
    let a: SumRowsArgs = call.args();
    let (rows, cols, offset) = (a.rows as usize, a.cols as usize, a.offset as usize);
    let part = call.share_blocks(cols, LANES);
    // SAFETY: the contract of `Kernel`; this part writes its columns alone.
    let (x, y) = unsafe { (call.bufs[0].read(), call.bufs[1].write(offset + part.start..offset + part.end)) };
    let (x, first, beta) = (&x[..rows * cols], part.start, a.beta);
    at_level!(call.level, body, (beta: f32, cols: usize, first: usize, x: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(beta: f32, cols: usize, first: usize, x: &[f32], y: &mut [f32]) {
    for (i, y) in y.chunks_mut(4 * LANES).enumerate() {
        let first = first + i * 4 * LANES;
        let mut sum = [0.0; 4 * LANES];
        for row in x.chunks_exact(cols) {
            for (sum, x) in sum.iter_mut().zip(&row[first..first + y.len()]) {
                *sum += x;
            }
        }
        for (y, sum) in y.iter_mut().zip(&sum) {
            *y = keep(beta, *y) + sum;
        }
    }
}
