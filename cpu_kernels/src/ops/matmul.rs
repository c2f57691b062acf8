//! f32 matrix product: d = alpha * a b + beta * d, for each matrix of a batch.
//!
//! a is (m, k), or (k, m) when transposed; b is (k, n), or (n, k) when transposed; d is (m, n). All are dense; a_offset, b_offset
//! and d_offset count elements. `symmetric` promises that the result is: a kernel may compute one half and mirror it.
//! `fast`: a and b are rounded to the 11 significant bits of f16.

use crate::matrix::dense_gemv::{DensePanels, FEW_ROWS};
use crate::matrix::gemm::{Gemm, Mat};
use crate::matrix::ternary_gemv::Layouts;
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Args, Buf, Call, Level, args};
use std::ops::Range;

args! {
    pub struct MatmulArgs { m: u32, n: u32, k: u32, batch: u32, a_transposed: u32, b_transposed: u32, symmetric: u32, a_offset: u32, b_offset: u32, d_offset: u32, alpha: f32, beta: f32, fast: u32 }
}

impl Default for MatmulArgs {
    /// One product a b of nothing, written to d.
    fn default() -> Self {
        MatmulArgs { alpha: 1.0, batch: 1, ..bytemuck::Zeroable::zeroed() }
    }
}

/// Few rows of x w^T with a constant w, the head of a model, read w in panels.
pub(crate) static PACKING: Packing = Packing { constants: &[1], wanted, shape, make };

pub(super) fn wanted(_: Level, words: &ArgWords) -> bool {
    let a = MatmulArgs::from_words(words);
    let plain = MatmulArgs { m: a.m, n: a.n, k: a.k, a_offset: a.a_offset, b_transposed: 1, ..MatmulArgs::default() };
    *words == plain.to_words() && a.m as usize <= FEW_ROWS && a.k > 0
}

/// (n, k)
pub(super) fn shape(words: &ArgWords) -> [u32; 3] {
    let a = MatmulArgs::from_words(words);
    [a.n, a.k, 0]
}

/// # Safety
/// See [`Packing::make`].
unsafe fn make(_: Level, _: &Layouts, words: &ArgWords, bufs: &[Buf]) -> Packed {
    let a = MatmulArgs::from_words(words);
    // SAFETY: unwritten by this function's contract.
    Packed::Dense(DensePanels::new(unsafe { bufs[1].read() }, a.n as usize, a.k as usize))
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn matmul(call: &Call<'_>) {
    // SAFETY: unwritten by this function's contract.
    let b = unsafe { call.bufs[1].read::<f32>() };
    // SAFETY: passed on.
    unsafe { product(call, |range, [row_stride, col_stride]| Mat::Dense { data: &b[range], row_stride, col_stride }) }
}

/// The op with a right factor `b`: the matrix of these elements and with these strides.
///
/// # Safety
/// See [`crate::Kernel`].
pub(super) unsafe fn product<'b>(call: &Call<'_>, b: impl Fn(Range<usize>, [usize; 2]) -> Mat<'b>) {
    let a: MatmulArgs = call.args();
    let [x, _, d] = call.bufs else { panic!("a product takes three buffers") };
    let [m, n, k] = [a.m, a.n, a.k].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let x = unsafe { x.read::<f32>() };
    let d = d.array::<f32>(a.d_offset as usize, &[a.batch, a.m, a.n]);
    if let Some(Packed::Dense(panels)) = call.packed {
        assert!(panels.shape() == (n, k), "matmul: ({n}, {k}) of a packed {:?}", panels.shape());
        let x = &x[a.a_offset as usize..];
        // SAFETY: d holds the result of this shape; parts compute disjoint columns.
        return unsafe { panels.run_part(call.level, x, m, d, call.part, call.parts) };
    }
    each_matrix(call, a.batch as usize, |i, part, parts| {
        let x = &x[a.a_offset as usize + i * m * k..][..m * k];
        let x = if a.a_transposed == 0 { Mat::row_major(x, k) } else { Mat::transposed(x, m) };
        let start = a.b_offset as usize + i * k * n;
        let y = b(start..start + k * n, if a.b_transposed == 0 { [n, 1] } else { [1, k] });
        let gemm = Gemm {
            alpha: a.alpha,
            beta: a.beta,
            symmetric: a.symmetric != 0,
            short: a.fast != 0,
            ..Gemm::new((m, n, k), x, y)
        };
        // SAFETY: d holds `batch` results; parts compute disjoint tiles.
        unsafe { gemm.run_part(call.level, d.add(i * m * n), n, part, parts) }
    });
}

/// Calls `product(i, part, parts)` for this part's share of `batch` matrices: whole ones if there are enough for all parts.
pub(crate) fn each_matrix(call: &Call<'_>, batch: usize, product: impl Fn(usize, usize, usize)) {
    if batch >= call.parts {
        call.share(batch).for_each(|i| product(i, 0, 1));
    } else {
        (0..batch).for_each(|i| product(i, call.part, call.parts));
    }
}
