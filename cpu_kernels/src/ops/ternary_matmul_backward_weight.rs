//! Straight-through gradient of `ternary_matmul`: dw += dy^T * x_hat over rows x_row.. of x_hat = xq * step.
//! `fast`: dw += (step * dy)^T * xq, with step * dy rounded to the 11 significant bits of f16, in which xq is exact.

use crate::matrix::gemm::{Gemm, Mat};
use crate::{Call, args};

args! {
    pub struct TernaryMatmulBackwardWeightArgs { rows: u32, outs: u32, dim: u32, x_row: u32, fast: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul_backward_weight(call: &Call<'_>) {
    let a: TernaryMatmulBackwardWeightArgs = call.args();
    let [dy, xq, step, dw] = call.bufs else { panic!("ternary_matmul_backward_weight takes four buffers") };
    let [rows, outs, dim, start] = [a.rows, a.outs, a.dim, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (dy, xq, step) = unsafe { (dy.read::<f32>(), xq.read::<i8>(), step.read::<f32>()) };
    let dw = dw.array::<f32>(0, &[a.outs, a.dim]);
    // SAFETY: dw holds the result.
    unsafe { product(call, (outs, dim, rows), [dy, &step[start..]], &xq[start * dim..], a.fast != 0, dw) }
}

/// This part's share of dw (outs, dim) += dy^T * (codes * step) over `rows` rows.
///
/// # Safety
/// `dw` is valid for that many values, of which a call writes those of its part alone.
pub(super) unsafe fn product(
    call: &Call<'_>,
    (outs, dim, rows): (usize, usize, usize),
    [dy, step]: [&[f32]; 2],
    codes: &[i8],
    fast: bool,
    dw: *mut f32,
) {
    let product =
        |steps| Gemm::new((outs, dim, rows), Mat::transposed(dy, outs), Mat::Int8 { codes, steps, cols: dim });
    let ones;
    let gemm = if fast {
        ones = vec![1.0; step[..rows].len()];
        Gemm { beta: 1.0, short: true, steps: step, ..product(&ones) }
    } else {
        Gemm { beta: 1.0, ..product(step) }
    };
    // SAFETY: by this function's contract; parts compute disjoint tiles.
    unsafe { gemm.run_part(call.level, dw, dim, call.part, call.parts) }
}
