//! Activations to int8, one step per row: step = max(max|x|, 1e-8) / 127, xq = clamp(round_half_even(x / step), -127, 127).
//! A row with a value that is not finite has the step NaN and codes of -127.

use crate::{Call, args, matrix::quantize};

args! {
    pub struct QuantizeRowsArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn quantize_rows(call: &Call<'_>) {
    let a: QuantizeRowsArgs = call.args();
    let [x, xq, step] = call.bufs else { panic!("quantize_rows takes three buffers") };
    let (rows, dim) = (call.share(a.rows as usize), a.dim as usize);
    // SAFETY: the input is not written during the op; each part writes its own rows.
    let (x, xq, step) =
        unsafe { (x.read::<f32>(), xq.write::<i8>(rows.start * dim..rows.end * dim), step.write::<f32>(rows.clone())) };
    quantize::rows(call.level, &x[rows.start * dim..rows.end * dim], dim, xq, step);
}
