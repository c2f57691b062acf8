//! Gradient of `swiglu` where up and gate are the first and the last cols columns of one matrix x (rows, 2 cols):
//! dup = dy * silu(gate), dgate = dy * up * silu'(gate), at the same places of dx. `squared` is as in
//! `swiglu_backward`.

use super::swiglu_backward;
use crate::{Call, args, at_level};

args! {
    pub struct SwigluColumnsBackwardArgs { rows: u32, cols: u32, squared: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu_columns_backward(call: &Call<'_>) {
    let a: SwigluColumnsBackwardArgs = call.args();
    let (part, cols) = (call.share(a.rows as usize), a.cols as usize);
    let own = |cols: usize| part.start * cols..part.end * cols;
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, dy, dx) = unsafe { (call.bufs[0].read(), call.bufs[1].read(), call.bufs[2].write(own(2 * cols))) };
    let (x, dy) = (&x[own(2 * cols)], &dy[own(cols)]);
    match a.squared {
        0 => at_level!(call.level, silu, (cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32])),
        _ => at_level!(call.level, squared, (cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32])),
    }
}

#[inline(always)]
fn silu(cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    rows(cols, x, dy, dx, swiglu_backward::body);
}

#[inline(always)]
fn squared(cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    rows(cols, x, dy, dx, swiglu_backward::squared);
}

#[inline(always)]
fn rows(
    cols: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    gradient: impl Fn(&[f32], &[f32], &[f32], &mut [f32], &mut [f32]),
) {
    let rows = x.chunks_exact(2 * cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(2 * cols));
    for ((x, dy), dx) in rows {
        let ((up, gate), (dup, dgate)) = (x.split_at(cols), dx.split_at_mut(cols));
        gradient(gate, up, dy, dgate, dup);
    }
}
