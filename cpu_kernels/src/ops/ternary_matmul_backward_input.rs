//! Straight-through gradient of `ternary_matmul`: dx[x_row + r] = beta * dx[x_row + r] + dy[r] * w_hat, w_hat = code * scale.
//! `fast`: dy is rounded to the 11 significant bits of f16, in which w_hat is exact.

use crate::matrix::gemm::{Gemm, Mat};
use crate::{Call, args};

args! {
    pub struct TernaryMatmulBackwardInputArgs { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32, beta: f32, fast: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul_backward_input(call: &Call<'_>) {
    let a: TernaryMatmulBackwardInputArgs = call.args();
    let [dy, codes, scales, dx] = call.bufs else { panic!("ternary_matmul_backward_input takes four buffers") };
    let [rows, outs, dim, start] = [a.rows, a.outs, a.dim, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (dy, codes, scales) = unsafe { (dy.read::<f32>(), codes.read::<u8>(), scales.read::<f32>()) };
    let w_hat = Mat::Ternary { codes, scales, group: a.group as usize, cols: dim };
    let gemm =
        Gemm { beta: a.beta, short: a.fast != 0, ..Gemm::new((rows, dim, outs), Mat::row_major(dy, outs), w_hat) };
    let dx = dx.array::<f32>(start * dim, &[a.rows, a.dim]);
    // SAFETY: dx holds the result; parts compute disjoint tiles.
    unsafe { gemm.run_part(call.level, dx, dim, call.part, call.parts) }
}
