//! Places columns of x (rows, x_cols), those from `x_first` on, in y (rows, stride) from column `first` on:
//! y[r][first + c] = x[r][x_first + c].

use crate::{Call, args};

args! {
    pub struct JoinColumnsArgs { rows: u32, cols: u32, x_first: u32, x_cols: u32, first: u32, stride: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn join_columns(call: &Call<'_>) {
    let a: JoinColumnsArgs = call.args();
    let [rows, cols, x_first, x_cols, first, stride] =
        [a.rows, a.cols, a.x_first, a.x_cols, a.first, a.stride].map(|n| n as usize);
    assert!(first + cols <= stride, "{cols} columns from {first} on, of {stride}");
    assert!(x_first + cols <= x_cols, "{cols} columns from {x_first} on, of {x_cols}");
    let part = call.share(rows);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, y) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(part.start * stride..part.end * stride)) };
    for (r, y) in part.zip(y.chunks_exact_mut(stride)) {
        y[first..first + cols].copy_from_slice(&x[r * x_cols + x_first..][..cols]);
    }
}
