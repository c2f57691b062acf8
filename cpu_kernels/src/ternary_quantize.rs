//! Weights to ternary codes, one scale per group of `group` consecutive inputs of a row (BitNet b1.58, arXiv 2402.17764).
//!
//! scale = f16(mean|w|), at least 2^-14, the sum taken by adding halves; code = +1 if w > scale/2, -1 if w < -scale/2, else 0.
//! Codes are packed as in GGUF's TQ2_0: 128 weights in 32 bytes, byte m holding weights m, m+32, m+64, m+96 in bits 0-1, 2-3,
//! 4-5, 6-7, as code + 1; a row is padded to a multiple of 128 with zeros (1).

use crate::{Call, args};

args! {
    pub struct TernaryQuantizeArgs { rows: u32, dim: u32, group: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_quantize(_call: &Call<'_>) {
    unreachable!("written by the kernels' author")
}
