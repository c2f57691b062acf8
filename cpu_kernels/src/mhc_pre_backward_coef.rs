//! Gradient of `mhc_pre` with respect to h_pre, first stage: partial[b][i] = sum of X_i * du over the elements of block b.
//! `sum_rows` adds the blocks.

use crate::{Call, args};

args! {
    pub struct MhcPreBackwardCoefArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre_backward_coef(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
