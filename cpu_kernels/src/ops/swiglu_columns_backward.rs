//! Gradient of `swiglu` where up and gate are the first and the last cols columns of one matrix x (rows, 2 cols):
//! dup = dy * silu(gate), dgate = dy * up * silu'(gate), at the same places of dx.

use crate::simd::math::sigmoid;
use crate::{Call, args, at_level};

args! {
    pub struct SwigluColumnsBackwardArgs { rows: u32, cols: u32 }
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
    at_level!(call.level, body, (cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]));
}

#[inline(always)]
fn body(cols: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let rows = x.chunks_exact(2 * cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(2 * cols));
    for ((x, dy), dx) in rows {
        let ((up, gate), (dup, dgate)) = (x.split_at(cols), dx.split_at_mut(cols));
        let inputs = gate.iter().zip(up).zip(dy);
        for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
            let s = sigmoid(*gate);
            *dup = dy * (gate * s);
            *dgate = dy * up * (s * (1.0 + gate * (1.0 - s)));
        }
    }
}
