//! Muon, last step: w = w (1 - lr wd) - lr * shape * x with x the orthogonalised direction at x[offset..] (stored transposed when
//! `transposed`), lr = args.lr * step[0] and shape = sqrt(max(1, rows / cols)). Nothing moves when ctl[1] is set.

use crate::{Call, args};

args! {
    pub struct MuonUpdateArgs { rows: u32, cols: u32, offset: u32, transposed: u32, lr: f32, shape: f32, weight_decay: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn muon_update(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
