//! partial[offset + b] = sum of x^2 over block b of 4096 elements. With rows > 1, x is `rows` equal pieces of n elements, each with
//! its own ceil(n / 4096) blocks: the first stage of a norm.

use crate::{Call, args};

args! {
    pub struct SumSquaresArgs { n: u32, rows: u32, offset: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn sum_squares(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
