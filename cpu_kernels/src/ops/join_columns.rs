//! Places columns of x (rows, width), those from `from` on, in y (rows, stride) from column `first` on:
//! y[r][first + c] = x[r][from + c].

use crate::{Call, args};

args! {
    pub struct JoinColumnsArgs { rows: u32, cols: u32, from: u32, width: u32, first: u32, stride: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn join_columns(call: &Call<'_>) {
    let a: JoinColumnsArgs = call.args();
    let [rows, cols, from, width, first, stride] =
        [a.rows, a.cols, a.from, a.width, a.first, a.stride].map(|n| n as usize);
    assert!(first + cols <= stride, "{cols} columns from {first} on, of {stride}");
    assert!(from + cols <= width, "{cols} columns from {from} on, of {width}");
    let part = call.share(rows);
    // SAFETY: the contract of `Kernel`; this part writes its rows alone.
    let (x, y) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].write::<f32>(part.start * stride..part.end * stride)) };
    for (r, y) in part.zip(y.chunks_exact_mut(stride)) {
        y[first..first + cols].copy_from_slice(&x[r * width + from..][..cols]);
    }
}
