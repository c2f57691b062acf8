//! Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)), or with `squared` y = relu(gate)^2 * up
//! (So et al. 2021). Element (r, c) of gate is at
//! r * stride + gate + c of its buffer, that of up at r * stride + up + c: both may be columns of one matrix. y is (rows, cols).

use crate::simd::math::{LANES, sigmoid};
use crate::{Call, args, at_level};

args! {
    pub struct SwigluArgs { rows: u32, cols: u32, stride: u32, gate: u32, up: u32, squared: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu(call: &Call<'_>) {
    let a: SwigluArgs = call.args();
    let (cols, stride) = (a.cols as usize, a.stride as usize);
    let part = call.share_blocks(a.rows as usize * cols, LANES);
    // SAFETY: the contract of `Kernel`.
    let (gate, up) = unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>()) };
    let mut start = part.start;
    while start < part.end {
        let (row, col) = (start / cols, start % cols);
        let end = part.end.min((row + 1) * cols);
        let [gate, up] =
            [(gate, a.gate), (up, a.up)].map(|(x, first)| &x[row * stride + first as usize + col..][..end - start]);
        // SAFETY: the contract of `Kernel`; this part writes `part` alone.
        let y = unsafe { call.bufs[2].write::<f32>(start..end) };
        match a.squared {
            0 => at_level!(call.level, body, (gate: &[f32], up: &[f32], y: &mut [f32])),
            _ => at_level!(call.level, squared, (gate: &[f32], up: &[f32], y: &mut [f32])),
        }
        start = end;
    }
}

#[inline(always)]
fn body(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * sigmoid(*gate) * up;
    }
}

#[inline(always)]
fn squared(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        let positive = positive(*gate);
        *y = positive * positive * up;
    }
}

/// The value if it is above 0, or not a number; 0 otherwise.
#[inline(always)]
pub(super) fn positive(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}
