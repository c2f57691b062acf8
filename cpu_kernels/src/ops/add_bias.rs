//! A bias added to each row in place: x[r][c] += bias[c].

use crate::{Call, args, at_level};

args! {
    pub struct AddBiasArgs { rows: u32, cols: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn add_bias(call: &Call<'_>) {
    let a: AddBiasArgs = call.args();
    let cols = a.cols as usize;
    let part = call.share(a.rows as usize);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, bias) = unsafe { (call.bufs[0].write(part.start * cols..part.end * cols), call.bufs[1].read()) };
    let bias = &bias[..cols];
    at_level!(call.level, body, (x: &mut [f32], bias: &[f32]));
}

#[inline(always)]
fn body(x: &mut [f32], bias: &[f32]) {
    for x in x.chunks_exact_mut(bias.len().max(1)) {
        for (x, bias) in x.iter_mut().zip(bias) {
            *x += bias;
        }
    }
}
