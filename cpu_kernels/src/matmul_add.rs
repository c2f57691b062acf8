//! f32 matrix product into a new matrix: d = alpha * a b + beta * c, for each matrix of a batch; all dense, none transposed.
//! `symmetric` as in `matmul`.

use crate::{Call, args};

args! {
    pub struct MatmulAddArgs { m: u32, n: u32, k: u32, batch: u32, symmetric: u32, alpha: f32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn matmul_add(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
