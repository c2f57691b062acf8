//! Muon (Jordan et al. 2024), first step: m = beta m + (1-beta) g and the Nesterov direction (1-beta) g + beta m into x[offset..],
//! with g = gradient * ctl[0]; the matrix is (rows, cols), stored transposed in x when `transposed`. m stays when ctl[1] is set.

use crate::{Call, args};

args! {
    pub struct MuonMomentumArgs { rows: u32, cols: u32, offset: u32, transposed: u32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_momentum(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
