//! Token embedding: y[r] = table[ids[r]].

use crate::{Call, args};

args! {
    pub struct EmbeddingArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn embedding(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
