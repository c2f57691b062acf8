//! y = scale * (sum of the `streams` residual streams of n elements, in order).

use crate::{Call, args};

args! {
    pub struct MhcCollapseArgs { n: u32, streams: u32, scale: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_collapse(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
