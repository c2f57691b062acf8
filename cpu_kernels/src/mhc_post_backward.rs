//! Gradient of `mhc_post` with respect to streams and f: dx_j = sum over i of H_res[i][j] dy_i, df = sum over i of h_post[i] dy_i.

use crate::{Call, args};

args! {
    pub struct MhcPostBackwardArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
