//! Gradient of `rms_norm` with respect to x: with g = dy * w, dx = beta * dx + rstd * (g - x * rstd^2 * mean(g * x)).

use crate::{Call, args};

args! {
    pub struct RmsNormBackwardArgs { rows: u32, dim: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rms_norm_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
