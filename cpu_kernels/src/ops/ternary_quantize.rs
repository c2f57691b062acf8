//! Weights to ternary codes, one scale per group of `group` consecutive inputs of a row (BitNet b1.58, arXiv 2402.17764).
//!
//! scale = f16(mean|w|), at least 2^-14, the sum taken by adding halves; code = +1 if w > scale/2, -1 if w < -scale/2, else 0.
//! Codes are packed as in GGUF's TQ2_0: 128 weights in 32 bytes, byte m holding weights m, m+32, m+64, m+96 in bits 0-1, 2-3,
//! 4-5, 6-7, as code + 1; a row is padded to a multiple of 128 with zeros (1). A group whose mean is not finite has the scale
//! NaN and codes of 0. With `stage` 1 the sums of |w| take the place of scales and no codes are made; with 2 the scales are given.

use crate::matrix::packed_row_bytes;
use crate::{Call, args, matrix::quantize};

args! {
    pub struct TernaryQuantizeArgs { rows: u32, dim: u32, group: u32, stage: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_quantize(call: &Call<'_>) {
    let a: TernaryQuantizeArgs = call.args();
    let [w, codes, scales] = call.bufs else { panic!("ternary_quantize takes three buffers") };
    let (rows, dim, group) = (call.share(a.rows as usize), a.dim as usize, a.group as usize);
    let own = |width: usize| rows.start * width..rows.end * width;
    // SAFETY: the input is not written during the op; each part writes its own rows.
    let (w, codes, scales) = unsafe {
        (w.read::<f32>(), codes.write::<u8>(own(packed_row_bytes(dim))), scales.write::<f32>(own(dim / group)))
    };
    quantize::ternary_stage(call.level, a.stage, &w[own(dim)], (dim, group), codes, scales);
}
