//! Gradient of `mhc_post` with respect to its coefficients, first stage, over the elements of block b:
//! partial[b] = (sum of f * dy_i for each i, then sum of X_j * dy_i for each i, j). `sum_rows` adds the blocks.

use crate::{Call, args};

args! {
    pub struct MhcPostBackwardCoefArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post_backward_coef(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
