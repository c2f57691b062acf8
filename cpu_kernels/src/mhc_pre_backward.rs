//! Gradient of `mhc_pre` with respect to the streams: dx_i = beta * dx_i + h_pre[i] * du.

use crate::{Call, args};

args! {
    pub struct MhcPreBackwardArgs { n: u32, streams: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_pre_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
