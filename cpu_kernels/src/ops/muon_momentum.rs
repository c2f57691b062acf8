//! Muon (Jordan et al. 2024), first step: m = beta m + (1-beta) g and the Nesterov direction (1-beta) g + beta m into x[offset..],
//! with g = gradient * ctl[0]; the matrix is (rows, cols) from element `start` of g and m, stored transposed in x when `transposed`. m
//! stays when ctl[1] is set.

use crate::simd::math::LANES;
use crate::{Buf, Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MuonMomentumArgs { rows: u32, cols: u32, offset: u32, transposed: u32, beta: f32, start: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_momentum(call: &Call<'_>) {
    let a: MuonMomentumArgs = call.args();
    let cols = a.cols as usize;
    let part = call.share_blocks(a.rows as usize, LANES);
    let start = a.start as usize;
    let elements = start + part.start * cols..start + part.end * cols;
    // SAFETY: the contract of `Kernel`; this part writes its rows of m alone.
    let (g, ctl, m) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(elements.clone())) };
    let (a, g, x) = (&a, &g[elements], &call.bufs[3]);
    at_level!(call.level, body,
        (a: &MuonMomentumArgs, part: Range<usize>, g: &[f32], ctl: &[f32], m: &mut [f32], x: &Buf));
}

#[inline(always)]
fn body(a: &MuonMomentumArgs, part: Range<usize>, g: &[f32], ctl: &[f32], m: &mut [f32], x: &Buf) {
    let (rows, cols, offset) = (a.rows as usize, a.cols as usize, a.offset as usize);
    if a.transposed == 0 {
        // SAFETY: these are the elements of x that belong to this part's rows.
        let x = unsafe { x.write(offset + part.start * cols..offset + part.end * cols) };
        return direction(a.beta, ctl, g, m, x);
    }
    let mut tile = [[0.0; LANES]; LANES];
    for top in part.clone().step_by(LANES) {
        let height = LANES.min(part.end - top);
        for left in (0..cols).step_by(LANES) {
            let width = LANES.min(cols - left);
            for (r, tile) in tile[..height].iter_mut().enumerate() {
                let start = (top - part.start + r) * cols + left;
                direction(a.beta, ctl, &g[start..start + width], &mut m[start..start + width], &mut tile[..width]);
            }
            for c in 0..width {
                let start = offset + (left + c) * rows + top;
                // SAFETY: these are elements of x that belong to this part's rows.
                let x = unsafe { x.write(start..start + height) };
                for (x, tile) in x.iter_mut().zip(&tile) {
                    *x = tile[c];
                }
            }
        }
    }
}

#[inline(always)]
fn direction(beta: f32, ctl: &[f32], g: &[f32], m: &mut [f32], x: &mut [f32]) {
    let (factor, skip) = (ctl[0], ctl[1] != 0.0);
    for ((g, m), x) in g.iter().zip(m).zip(x) {
        let g = g * factor;
        let moved = beta * *m + (1.0 - beta) * g;
        *x = (1.0 - beta) * g + beta * moved;
        *m = if skip { *m } else { moved };
    }
}
