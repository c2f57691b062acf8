//! Gradient of `embedding`: dtable[ids[r]] += dy[r], without atomics.
//!
//! `order` lists the rows sorted by id (ties in row order); the unit of work that finds the first row of an id adds up that
//! id's whole run, in order, so the sum does not depend on scheduling.

use crate::{Call, args};

args! {
    pub struct EmbeddingBackwardArgs { rows: u32, dim: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn embedding_backward(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
