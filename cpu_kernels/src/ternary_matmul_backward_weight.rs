//! Straight-through gradient of `ternary_matmul`: dw += dy^T * x_hat over rows x_row.. of x_hat = xq * step.

use crate::{Call, args};

args! {
    pub struct TernaryMatmulBackwardWeightArgs { rows: u32, outs: u32, dim: u32, x_row: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul_backward_weight(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
