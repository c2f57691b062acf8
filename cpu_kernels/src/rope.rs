//! Rotary position embedding (Su et al. 2021), half-split: rotates the pairs (i, i + head_dim/2) of every head by
//! position * theta^(-2i/head_dim). `table` holds (cos, sin) for each position and i; sign -1 rotates back (the gradient).

use crate::{Call, args};

args! {
    pub struct RopeArgs { rows: u32, heads: u32, head_dim: u32, sign: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn rope(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
