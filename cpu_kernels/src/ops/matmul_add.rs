//! f32 matrix product into a new matrix: d = alpha * a b + beta * c, for each matrix of a batch; all dense, none transposed.
//! `symmetric` as in `matmul`.

use crate::matrix::gemm::{Gemm, Mat};
use crate::ops::matmul::each_matrix;
use crate::{Call, args};

args! {
    pub struct MatmulAddArgs { m: u32, n: u32, k: u32, batch: u32, symmetric: u32, alpha: f32, beta: f32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn matmul_add(call: &Call<'_>) {
    let a: MatmulAddArgs = call.args();
    let [x, y, c, d] = call.bufs else { panic!("matmul_add takes four buffers") };
    let [m, n, k] = [a.m, a.n, a.k].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (x, y, c) = unsafe { (x.read::<f32>(), y.read::<f32>(), c.read::<f32>()) };
    let result = d.array::<f32>(0, &[a.batch, a.m, a.n]);
    each_matrix(call, a.batch as usize, |i, part, parts| {
        let (x, y) = (&x[i * m * k..][..m * k], &y[i * k * n..][..k * n]);
        let gemm = Gemm {
            alpha: a.alpha,
            beta: a.beta,
            symmetric: a.symmetric != 0,
            ..Gemm::new((m, n, k), Mat::row_major(x, k), Mat::row_major(y, n))
        };
        let (rows, cols) = gemm.share(call.level, part, parts);
        for r in rows {
            let at = (i * m + r) * n;
            // SAFETY: this part's tile of the result.
            let row = unsafe { d.write::<f32>(at + cols.start..at + cols.end) };
            row.copy_from_slice(&c[at + cols.start..at + cols.end]);
        }
        // SAFETY: d holds `batch` results; parts compute disjoint tiles.
        unsafe { gemm.run_part(call.level, result.add(i * m * n), n, part, parts) }
    });
}
