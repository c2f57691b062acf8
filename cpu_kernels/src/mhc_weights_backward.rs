//! Gradient of `mhc_weights`: dp += J^T dcoef.

use crate::{Call, args};

args! {
    pub struct MhcWeightsBackwardArgs { streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_weights_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
