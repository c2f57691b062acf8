//! Straight-through gradient of `ternary_matmul`: dx[x_row + r] = beta * dx[x_row + r] + dy[r] * w_hat, w_hat = code * scale.

use crate::{Call, args};

args! {
    pub struct TernaryMatmulBackwardInputArgs { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul_backward_input(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
