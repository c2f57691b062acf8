//! Output of a sub-layer: Y_i = sum over j of H_res[i][j] X_j + h_post[i] f.

use crate::{Call, args};

args! {
    pub struct MhcPostArgs { n: u32, streams: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn mhc_post(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
