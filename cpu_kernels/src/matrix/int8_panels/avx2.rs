//! AVX2: `vpmaddubsw` of |code| and the activation with the code's sign, which cannot saturate: 2 * 128 * 127 < 2^15.

use super::{CODES, Few, PANEL, ROWS};
use crate::ops::int8_matmul::GROUP;
use std::arch::x86_64::*;

/// Outputs that are summed at once.
const WIDE: usize = 32;
const NV: usize = WIDE / 8;

/// # Safety
/// AVX2 and F16C; the pointers of `few` are valid for its sizes.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn panel(few: &Few, out: &mut [[f32; PANEL]; ROWS]) {
    for (r, out) in out.iter_mut().enumerate().take(few.rows) {
        for (i, out) in out.as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
            // SAFETY: row r, and half i of the panel.
            unsafe { half_panel(few, r, i * WIDE, out) };
        }
    }
}

/// # Safety
/// As for [`panel`]; `r < few.rows`, and `first + WIDE <= PANEL`.
#[target_feature(enable = "avx2,f16c")]
unsafe fn half_panel(few: &Few, r: usize, first: usize, out: &mut [f32; WIDE]) {
    let (flip, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut acc = [_mm256_setzero_ps(); NV];
    for g in 0..few.groups {
        // SAFETY: block g of the panel.
        let block = unsafe { few.weights.add(g * few.block) };
        let mut sum = [_mm256_setzero_si256(); NV];
        for k in 0..GROUP / 4 {
            let at = (r * few.groups + g) * GROUP + 4 * k;
            // SAFETY: four inputs of row r.
            let x = _mm256_set1_epi32(unsafe { few.x.add(at).cast::<i32>().read_unaligned() });
            for (v, sum) in sum.iter_mut().enumerate() {
                // SAFETY: four inputs of eight outputs.
                let w = unsafe { _mm256_loadu_si256(block.add((k * PANEL + first + 8 * v) * 4).cast()) };
                let w = _mm256_xor_si256(w, flip);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        for (v, (acc, sum)) in acc.iter_mut().zip(sum).enumerate() {
            // SAFETY: 64 scales follow the codes.
            let scale = unsafe {
                let scales = block.add(CODES);
                if few.half {
                    _mm256_cvtph_ps(_mm_loadu_si128(scales.add(2 * (first + 8 * v)).cast()))
                } else {
                    _mm256_loadu_ps(scales.add(4 * (first + 8 * v)).cast())
                }
            };
            *acc = _mm256_add_ps(*acc, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
        }
    }
    for (acc, out) in acc.iter().zip(out.as_chunks_mut::<8>().0) {
        // SAFETY: 8 floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *acc) };
    }
}
