//! Quantised linear layer: y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (integer sum of code * xq).
//!
//! The float sum starts at 0 and multiplies, then adds, never fused: the result is the same bit for bit at every level and for
//! any number of rows. Rows `x_row..x_row + rows` of xq are read; y starts at row 0.

use crate::{Call, args};

args! {
    pub struct TernaryMatmulArgs { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
