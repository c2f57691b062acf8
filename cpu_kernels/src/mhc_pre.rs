//! Input of a sub-layer: u = sum over i of h_pre[i] X_i; `coef` as written by `mhc_weights`.

use crate::{Call, args};

args! {
    pub struct MhcPreArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
