//! y[i] = scale * x for each of `streams` residual streams of n elements.

use crate::{Call, args};

args! {
    pub struct MhcExpandArgs { n: u32, streams: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_expand(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
