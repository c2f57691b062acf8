//! Straight-through gradient of `grouped_ternary`: for the rows r of expert e, dx[r] = beta * dx[r] + dy[r] * w_hat[e], w_hat =
//! code * scale. `fast`: dy is rounded to the 11 significant bits of f16, in which w_hat is exact.

use super::experts::ranges;
use crate::matrix::gemm::{Gemm, Mat};
use crate::matrix::packed_row_bytes;
use crate::{Call, args};

args! {
    pub struct GroupedTernaryBackwardInputArgs {
        rows: u32, experts: u32, outs: u32, dim: u32, group: u32, beta: f32, fast: u32,
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn grouped_ternary_backward_input(call: &Call<'_>) {
    let a: GroupedTernaryBackwardInputArgs = call.args();
    let [dy, starts, codes, scales, dx] = call.bufs else { panic!("five buffers") };
    let [rows, experts, outs, dim, group] = [a.rows, a.experts, a.outs, a.dim, a.group].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (dy, starts, codes, scales) =
        unsafe { (dy.read::<f32>(), starts.read::<u32>(), codes.read::<u8>(), scales.read::<f32>()) };
    let (bytes, groups) = (outs * packed_row_bytes(dim), outs * (dim / group));
    let dx = dx.array::<f32>(0, &[a.rows, a.dim]);
    for (e, own) in ranges(starts, experts, rows) {
        let w_hat = Mat::Ternary { codes: &codes[e * bytes..], scales: &scales[e * groups..], group, cols: dim };
        let dy = Mat::row_major(&dy[own.start * outs..], outs);
        let gemm = Gemm { beta: a.beta, short: a.fast != 0, ..Gemm::new((own.len(), dim, outs), dy, w_hat) };
        // SAFETY: dx holds the expert's rows, which no other has; parts compute disjoint tiles.
        unsafe { gemm.run_part(call.level, dx.add(own.start * dim), dim, call.part, call.parts) }
    }
}
