//! Muon (Jordan et al. 2024), first step: m = beta m + (1-beta) g and the Nesterov direction (1-beta) g + beta m into x[offset..],
//! with g = gradient * ctl[0], for each of `batch` matrices (rows, cols): matrix i begins at element start + i * stride of g and m.
//! In x they lie one behind the other, stored transposed when `transposed`. m stays when ctl[1] is set.

use crate::simd::math::LANES;
use crate::{Buf, Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MuonMomentumArgs {
        rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32, beta: f32,
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_momentum(call: &Call<'_>) {
    let a: MuonMomentumArgs = call.args();
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    for (matrix, part) in tiles(call, (a.batch, a.stride), (rows, cols)) {
        let start = a.start as usize + matrix * a.stride as usize;
        let elements = start + part.start * cols..start + part.end * cols;
        // SAFETY: the contract of `Kernel`; this part writes its rows of m alone.
        let (g, ctl, m) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(elements.clone())) };
        let (a, g, x, offset) = (&a, &g[elements], &call.bufs[3], a.offset as usize + matrix * rows * cols);
        at_level!(call.level, body,
            (a: &MuonMomentumArgs, offset: usize, part: Range<usize>, g: &[f32], ctl: &[f32], m: &mut [f32], x: &Buf));
    }
}

/// This part's share of the rows of `batch` matrices that are `stride` elements apart: (matrix, rows). It begins at multiples of
/// [`LANES`], so that results cannot depend on the split.
pub(super) fn tiles(
    call: &Call<'_>,
    (batch, stride): (u32, u32),
    (rows, cols): (usize, usize),
) -> impl Iterator<Item = (usize, Range<usize>)> {
    assert!(batch <= 1 || rows * cols <= stride as usize, "matrices {stride} apart have {rows} x {cols} elements");
    let blocks = rows.div_ceil(LANES);
    let share = call.share(batch as usize * blocks);
    let first = share.start / blocks.max(1);
    (first..share.end.div_ceil(blocks.max(1))).map(move |matrix| {
        let within = |block: usize| (block.saturating_sub(matrix * blocks) * LANES).min(rows);
        (matrix, within(share.start)..within(share.end))
    })
}

/// Columns that are transposed at once.
const WIDTH: usize = 64;

#[inline(always)]
fn body(a: &MuonMomentumArgs, offset: usize, part: Range<usize>, g: &[f32], ctl: &[f32], m: &mut [f32], x: &Buf) {
    spread(a, offset, part, x, |at, x| direction(a.beta, ctl, &g[at.clone()], &mut m[at], x));
}

/// Puts the directions of the rows `part` of a matrix into x from `offset`. `fill` makes those of consecutive elements, counted
/// from the first of `part`: all of a row, or at most [`WIDTH`] from a multiple of that.
#[inline(always)]
pub(super) fn spread(
    a: &MuonMomentumArgs,
    offset: usize,
    part: Range<usize>,
    x: &Buf,
    mut fill: impl FnMut(Range<usize>, &mut [f32]),
) {
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    if a.transposed == 0 {
        for row in part.clone() {
            let (at, to) = ((row - part.start) * cols, offset + row * cols);
            // SAFETY: these are the elements of x that belong to this part's rows.
            fill(at..at + cols, unsafe { x.write(to..to + cols) });
        }
        return;
    }
    let mut tile = [[0.0; WIDTH]; LANES];
    for top in part.clone().step_by(LANES) {
        let height = LANES.min(part.end - top);
        for left in (0..cols).step_by(WIDTH) {
            let width = WIDTH.min(cols - left);
            for (r, tile) in tile[..height].iter_mut().enumerate() {
                let start = (top - part.start + r) * cols + left;
                fill(start..start + width, &mut tile[..width]);
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

/// Moves a momentum, unless the step is skipped, and gives the direction.
#[inline(always)]
pub(super) fn direction(beta: f32, ctl: &[f32], g: &[f32], m: &mut [f32], x: &mut [f32]) {
    let (factor, skip) = (ctl[0], ctl[1] != 0.0);
    for ((g, m), x) in g.iter().zip(m).zip(x) {
        let g = g * factor;
        let moved = beta * *m + (1.0 - beta) * g;
        *x = (1.0 - beta) * g + beta * moved;
        *m = if skip { *m } else { moved };
    }
}
