//! Column sums: y[offset + c] = beta * y[offset + c] + sum over r of x[r][c], rows in order.

use crate::{Call, args};

args! {
    pub struct SumRowsArgs { rows: u32, cols: u32, offset: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum_rows(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
