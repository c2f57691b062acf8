//! f32 matrix product: d = alpha * a b + beta * d, for each matrix of a batch.
//!
//! a is (m, k), or (k, m) when transposed; b is (k, n), or (n, k) when transposed; d is (m, n). All are dense; a_offset, b_offset
//! and d_offset count elements. `symmetric` promises that the result is: a kernel may compute one half and mirror it.

use crate::{Call, args};

args! {
    pub struct MatmulArgs { m: u32, n: u32, k: u32, batch: u32, a_transposed: u32, b_transposed: u32, symmetric: u32, a_offset: u32, b_offset: u32, d_offset: u32, alpha: f32, beta: f32 }
}

impl Default for MatmulArgs {
    /// One product a b of nothing, written to d.
    fn default() -> Self {
        MatmulArgs { alpha: 1.0, batch: 1, ..bytemuck::Zeroable::zeroed() }
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn matmul(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
