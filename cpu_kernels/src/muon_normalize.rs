//! Muon: each of `batch` matrices of n elements is divided by its Frobenius norm + 1e-7; `partial` holds ceil(n / 4096) sums of
//! squares per matrix, from `sum_squares`.

use crate::{Call, args};

args! {
    pub struct MuonNormalizeArgs { n: u32, batch: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_normalize(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
