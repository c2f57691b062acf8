//! f32 products of rows that are sorted by expert, with a matrix w[e] (outs, dim) for each: for the rows r of expert e, from
//! starts[e] up to starts[e + 1], by `kind`
//! 0: d[r] = a[r] * w[e]^T, with a (rows, dim), b = w and d (rows, outs);
//! 1: d[r] = beta * d[r] + a[r] * w[e], with a (rows, outs), b = w and d (rows, dim);
//! 2: d[e] = beta * d[e] + sum over r of a[r]^T * b[r], with a (rows, outs), b (rows, dim) and d (experts, outs, dim). beta is 1
//!    here: the matrix of an expert without rows stays as it is.
//! `fast`: a and b are rounded to the 11 significant bits of f16.

use super::experts::ranges;
use crate::matrix::gemm::{Gemm, Mat};
use crate::{Call, args};

args! {
    pub struct GroupedMatmulArgs {
        rows: u32, experts: u32, outs: u32, dim: u32, kind: u32, beta: f32, fast: u32,
    }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn grouped_matmul(call: &Call<'_>) {
    let a: GroupedMatmulArgs = call.args();
    let [x, b, starts, d] = call.bufs else { panic!("grouped_matmul takes four buffers") };
    let [rows, experts, outs, dim] = [a.rows, a.experts, a.outs, a.dim].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (x, b, starts) = unsafe { (x.read::<f32>(), b.read::<f32>(), starts.read::<u32>()) };
    let (shape, width) = match a.kind {
        0 => ([1, a.rows, a.outs], outs),
        1 => ([1, a.rows, a.dim], dim),
        _ => ([a.experts, a.outs, a.dim], dim),
    };
    let d = d.array::<f32>(0, &shape);
    for (e, own) in ranges(starts, experts, rows) {
        let n = own.len();
        let (product, beta, to) = match a.kind {
            0 => {
                let w = Mat::transposed(&b[e * outs * dim..], dim);
                (Gemm::new((n, outs, dim), Mat::row_major(&x[own.start * dim..], dim), w), 0.0, own.start * outs)
            }
            1 => {
                let w = Mat::row_major(&b[e * outs * dim..], dim);
                (Gemm::new((n, dim, outs), Mat::row_major(&x[own.start * outs..], outs), w), a.beta, own.start * dim)
            }
            _ => {
                let (x, b) =
                    (Mat::transposed(&x[own.start * outs..], outs), Mat::row_major(&b[own.start * dim..], dim));
                (Gemm::new((outs, dim, n), x, b), 1.0, e * outs * dim)
            }
        };
        let gemm = Gemm { beta, short: a.fast != 0, ..product };
        // SAFETY: d holds the result, and no other expert has these rows, or this matrix; parts compute disjoint tiles.
        unsafe { gemm.run_part(call.level, d.add(to), width, call.part, call.parts) }
    }
}
