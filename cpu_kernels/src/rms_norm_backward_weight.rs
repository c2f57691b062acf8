//! Gradient of `rms_norm` with respect to w, first stage: partial[b] = sum of dy * x * rstd over the 64 rows of block b.
//! `sum_rows` adds the blocks.

use crate::{Call, args};

args! {
    pub struct RmsNormBackwardWeightArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_backward_weight(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
