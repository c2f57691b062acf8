//! Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)).

use crate::{Call, args};

args! {
    pub struct SwigluArgs { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn swiglu(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
