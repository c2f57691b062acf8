//! RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * w. Keeps rstd = 1 / sqrt(...) for backward.

use crate::{Call, args};

args! {
    pub struct RmsNormArgs { rows: u32, dim: u32, eps: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
