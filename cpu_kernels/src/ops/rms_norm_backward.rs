//! Gradients of `rms_norm`. With respect to x: with g = dy * w, dx = beta * dx + rstd * (g - x * rstd^2 * mean(g * x)). With
//! respect to w: dw += sum over rows of dy * x * rstd, the sums of 64 rows each added up.

use crate::matrix::scratch::Scratch;
use crate::simd::math::{LANES, ROW_BLOCK, keep, sum_of};
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct RmsNormBackwardArgs { rows: u32, dim: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_backward(call: &Call<'_>) {
    let a: RmsNormBackwardArgs = call.args();
    let (rows, dim) = (a.rows as usize, a.dim as usize);
    let (part, columns) = (call.share(rows), call.share_blocks(dim, LANES));
    let own = part.start * dim..part.end * dim;
    // SAFETY: the contract of `Kernel`; this part writes its rows of dx and its columns of dw alone.
    let (x, w, rstd, dy, dx, dw) = unsafe {
        let (dx, dw) = (call.bufs[4].write(own.clone()), call.bufs[5].write(columns.clone()));
        (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), call.bufs[3].read(), dx, dw)
    };
    let (x, w, rstd, dy, beta) = (&x[..rows * dim], &w[..dim], &rstd[..rows], &dy[..rows * dim], a.beta);
    let mut scratch = Scratch::of_thread();
    let sums = scratch.slices([columns.len(); 2]);
    at_level!(call.level, to_weight,
        (columns: Range<usize>, dim: usize, x: &[f32], rstd: &[f32], dy: &[f32], sums: [&mut [f32]; 2], dw: &mut [f32]));
    let (x, rstd, dy) = (&x[own.clone()], &rstd[part], &dy[own]);
    at_level!(call.level, to_input, (beta: f32, x: &[f32], w: &[f32], rstd: &[f32], dy: &[f32], dx: &mut [f32]));
}

#[inline(always)]
fn to_input(beta: f32, x: &[f32], w: &[f32], rstd: &[f32], dy: &[f32], dx: &mut [f32]) {
    let dim = w.len();
    let rows = x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(rstd).zip(dx.chunks_exact_mut(dim));
    for (((x, dy), &rstd), dx) in rows {
        let mean = sum_of([dy, w, x], |[dy, w, x]| dy * w * x) / dim as f32;
        let along = rstd * rstd * mean;
        for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *dx = keep(beta, *dx) + rstd * (dy * w - x * along);
        }
    }
}

#[inline(always)]
fn to_weight(
    columns: Range<usize>,
    dim: usize,
    x: &[f32],
    rstd: &[f32],
    dy: &[f32],
    [sums, partial]: [&mut [f32]; 2],
    dw: &mut [f32],
) {
    sums.fill(0.0);
    let blocks = x.chunks(ROW_BLOCK * dim).zip(dy.chunks(ROW_BLOCK * dim)).zip(rstd.chunks(ROW_BLOCK));
    for ((x, dy), rstd) in blocks {
        partial.fill(0.0);
        for ((x, dy), rstd) in x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(rstd) {
            for ((p, x), dy) in partial.iter_mut().zip(&x[columns.clone()]).zip(&dy[columns.clone()]) {
                *p += dy * x * rstd;
            }
        }
        for (sum, p) in sums.iter_mut().zip(&*partial) {
            *sum += p;
        }
    }
    for (dw, sum) in dw.iter_mut().zip(&*sums) {
        *dw += sum;
    }
}
