//! Places the columns of x (rows, cols) in y (rows, stride) from column `first` on: y[r][first + c] = x[r][c].

use crate::{Call, args};

args! {
    pub struct JoinColumnsArgs { rows: u32, cols: u32, first: u32, stride: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn join_columns(call: &Call<'_>) {
    let a: JoinColumnsArgs = call.args();
    let [rows, cols, first, stride] = [a.rows, a.cols, a.first, a.stride].map(|n| n as usize);
    assert!(first + cols <= stride, "{cols} columns from {first} on, of {stride}");
    let part = call.share(rows);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, y) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(part.start * stride..part.end * stride)) };
    for (r, y) in part.zip(y.chunks_exact_mut(stride)) {
        y[first..first + cols].copy_from_slice(&x[r * cols..(r + 1) * cols]);
    }
}
