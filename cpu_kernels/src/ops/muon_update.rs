//! Muon, last step: w = w (1 - lr wd) - lr * shape * x with lr = args.lr * step[0] and shape = sqrt(max(1, rows / cols)), for each
//! of `batch` matrices (rows, cols): matrix i begins at element start + i * stride of w. The orthogonalised directions lie one
//! behind the other from x[offset], stored transposed when `transposed`. Nothing moves when ctl[1] is set.

use super::muon_momentum::tiles;
use crate::simd::math::LANES;
use crate::{Call, args, at_level};
use std::ops::Range;

args! {
    pub struct MuonUpdateArgs {
        rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32,
        lr: f32, shape: f32, weight_decay: f32,
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_update(call: &Call<'_>) {
    let a: MuonUpdateArgs = call.args();
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    for (matrix, part) in tiles(call, (a.batch, a.stride), (rows, cols)) {
        let start = a.start as usize + matrix * a.stride as usize;
        // SAFETY: the contract of `Kernel`; this part writes its rows alone.
        let (x, ctl, step, w) = unsafe {
            let w = call.bufs[3].write(start + part.start * cols..start + part.end * cols);
            (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].read(), w)
        };
        let (a, x) = (&a, &x[a.offset as usize + matrix * rows * cols..]);
        at_level!(call.level, body,
            (a: &MuonUpdateArgs, part: Range<usize>, x: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32]));
    }
}

#[inline(always)]
fn body(a: &MuonUpdateArgs, part: Range<usize>, x: &[f32], ctl: &[f32], step: &[f32], w: &mut [f32]) {
    let (rows, cols) = (a.rows as usize, a.cols as usize);
    let lr = a.lr * step[0];
    let (decay, rate) = (1.0 - lr * a.weight_decay, lr * a.shape);
    if ctl[1] != 0.0 {
        return;
    }
    if a.transposed == 0 {
        return descend(decay, rate, &x[part.start * cols..], w);
    }
    let mut tile = [[0.0; LANES]; LANES];
    for top in part.clone().step_by(LANES) {
        let height = LANES.min(part.end - top);
        for left in (0..cols).step_by(LANES) {
            let width = LANES.min(cols - left);
            for c in 0..width {
                let start = (left + c) * rows + top;
                for (tile, x) in tile.iter_mut().zip(&x[start..start + height]) {
                    tile[c] = *x;
                }
            }
            for (r, tile) in tile[..height].iter().enumerate() {
                let start = (top - part.start + r) * cols + left;
                descend(decay, rate, tile, &mut w[start..start + width]);
            }
        }
    }
}

#[inline(always)]
fn descend(decay: f32, rate: f32, x: &[f32], w: &mut [f32]) {
    for (w, x) in w.iter_mut().zip(x) {
        *w = *w * decay - rate * x;
    }
}
