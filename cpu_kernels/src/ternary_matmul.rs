//! Quantised linear layer: y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (integer sum of code * xq).
//!
//! The float sum starts at 0 and multiplies, then adds, never fused: the result is the same bit for bit at every level and for
//! any number of rows. Rows `x_row..x_row + rows` of xq are read; y starts at row 0.

use crate::ternary_gemm::TernaryGemm;
use crate::{Call, args};

args! {
    pub struct TernaryMatmulArgs { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul(call: &Call<'_>) {
    let a: TernaryMatmulArgs = call.args();
    let [xq, step, codes, scales, y] = call.bufs else { panic!("ternary_matmul takes five buffers") };
    let [rows, outs, dim, start] = [a.rows, a.outs, a.dim, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (xq, steps, codes, scales) =
        unsafe { (xq.read::<i8>(), step.read::<f32>(), codes.read::<u8>(), scales.read::<f32>()) };
    let (xq, steps) = (&xq[start * dim..], &steps[start..]);
    let product = TernaryGemm { rows, outs, dim, group: a.group as usize, xq, steps, codes, scales };
    assert!(rows * outs <= y.len::<f32>(), "ternary_matmul: result");
    // SAFETY: in bounds as just checked; parts compute disjoint tiles.
    unsafe { product.run_part(call.level, y.ptr(), outs, call.part, call.parts) }
}
