//! Straight-through gradient of `grouped_ternary`: dw[e] += dy^T * x_hat over the rows of expert e, x_hat = xq * step.
//! `fast`: dw[e] += (step * dy)^T * xq, with step * dy rounded to the 11 significant bits of f16, in which xq is exact.

use super::experts::ranges;
use super::ternary_matmul_backward_weight::product;
use crate::{Call, args};

args! {
    pub struct GroupedTernaryBackwardWeightArgs { rows: u32, experts: u32, outs: u32, dim: u32, fast: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn grouped_ternary_backward_weight(call: &Call<'_>) {
    let a: GroupedTernaryBackwardWeightArgs = call.args();
    let [dy, xq, step, starts, dw] = call.bufs else { panic!("five buffers") };
    let [rows, experts, outs, dim] = [a.rows, a.experts, a.outs, a.dim].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (dy, xq, step, starts) =
        unsafe { (dy.read::<f32>(), xq.read::<i8>(), step.read::<f32>(), starts.read::<u32>()) };
    let dw = dw.array::<f32>(0, &[a.experts, a.outs, a.dim]);
    for (e, own) in ranges(starts, experts, rows) {
        let (dy, codes, step) = (&dy[own.start * outs..], &xq[own.start * dim..], &step[own.start..]);
        // SAFETY: dw holds a matrix for each expert; parts compute disjoint tiles of it.
        unsafe { product(call, (outs, dim, own.len()), [dy, step], codes, a.fast != 0, dw.add(e * outs * dim)) }
    }
}
