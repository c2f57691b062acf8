//! [`super::matmul`] with a right factor of f16 values: the bits are those of the product with the same values as f32.

use super::matmul::{self, product};
use crate::matrix::dense_gemv::DensePanels;
use crate::matrix::gemm::Mat;
use crate::matrix::ternary_gemv::Layouts;
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Args, Buf, Call, Level};
use half::slice::HalfBitsSliceExt;

pub use super::matmul::MatmulArgs;

pub(crate) static PACKING: Packing = Packing { constants: &[1], wanted: matmul::wanted, shape: matmul::shape, make };

/// # Safety
/// See [`Packing::make`].
unsafe fn make(level: Level, _: &Layouts, words: &ArgWords, bufs: &[Buf]) -> Packed {
    let a = MatmulArgs::from_words(words);
    // SAFETY: unwritten by this function's contract.
    let b = unsafe { bufs[1].read::<u16>() };
    Packed::Dense(DensePanels::of_half(level, b.reinterpret_cast(), a.n as usize, a.k as usize))
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn matmul_f16(call: &Call<'_>) {
    // SAFETY: unwritten by this function's contract.
    let b = unsafe { call.bufs[1].read::<u16>() }.reinterpret_cast();
    // SAFETY: passed on.
    unsafe { product(call, |range, [row_stride, col_stride]| Mat::Half { data: &b[range], row_stride, col_stride }) }
}
