//! Straight-through gradient of `ternary_matmul`: dx[x_row + r] = beta * dx[x_row + r] + dy[r] * w_hat, w_hat = code * scale. The
//! outputs up to `first`, up to `second`, and the others may be those of several matrices: their products are added one after the
//! other, which gives the bits that an op for each would give. A GPU adds in an order of its own.
//! `fast`: dy is rounded to the 11 significant bits of f16, in which w_hat is exact.

use crate::matrix::gemm::{Gemm, Mat};
use crate::matrix::packed_row_bytes;
use crate::{Call, args};

args! {
    pub struct TernaryMatmulBackwardInputArgs {
        rows: u32, outs: u32, dim: u32, group: u32, x_row: u32, beta: f32, first: u32, second: u32, fast: u32,
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul_backward_input(call: &Call<'_>) {
    let a: TernaryMatmulBackwardInputArgs = call.args();
    let [dy, codes, scales, dx] = call.bufs else { panic!("ternary_matmul_backward_input takes four buffers") };
    let [rows, outs, dim, start] = [a.rows, a.outs, a.dim, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (dy, codes, scales) = unsafe { (dy.read::<f32>(), codes.read::<u8>(), scales.read::<f32>()) };
    let (row_bytes, groups) = (packed_row_bytes(dim), dim / a.group as usize);
    let dx = dx.array::<f32>(start * dim, &[a.rows, a.dim]);
    let (mut beta, mut from) = (a.beta, 0);
    for to in [a.first as usize, a.second as usize, outs] {
        if to <= from {
            continue;
        }
        let w_hat = Mat::Ternary {
            codes: &codes[from * row_bytes..],
            scales: &scales[from * groups..],
            group: a.group as usize,
            cols: dim,
        };
        let dy = Mat::Dense { data: &dy[from..], row_stride: outs, col_stride: 1 };
        let gemm = Gemm { beta, short: a.fast != 0, ..Gemm::new((rows, dim, to - from), dy, w_hat) };
        // SAFETY: dx holds the result; parts compute disjoint tiles, and the same ones of each product.
        unsafe { gemm.run_part(call.level, dx, dim, call.part, call.parts) }
        (beta, from) = (1.0, to);
    }
}
