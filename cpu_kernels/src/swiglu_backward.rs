//! Gradient of `swiglu`: dup = dy * silu(gate), dgate = dy * up * silu'(gate).

use crate::{Call, args};

args! {
    pub struct SwigluBackwardArgs { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
