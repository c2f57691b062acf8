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
    let (codes, step, cols) = (&xq[start * dim..], &step[start..], dim);
    let product = |steps| Gemm::new((outs, dim, rows), Mat::transposed(dy, outs), Mat::Int8 { codes, steps, cols });
    let ones;
    let gemm = match a.fast {
        0 => Gemm { beta: 1.0, ..product(step) },
        _ => {
            ones = vec![1.0; step[..rows].len()];
            Gemm { beta: 1.0, short: true, steps: step, ..product(&ones) }
        }
    };
    let dw = dw.array::<f32>(0, &[a.outs, a.dim]);
    // SAFETY: dw holds the result; parts compute disjoint tiles.
    unsafe { gemm.run_part(call.level, dw, dim, call.part, call.parts) }
}
