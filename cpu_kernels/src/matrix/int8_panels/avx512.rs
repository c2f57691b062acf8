//! AVX-512 VNNI: one `vpdpbusd` for 16 outputs x 4 inputs; each group starts from -128 times the sum of its activations.

use super::{CODES, Few, PANEL, ROWS};
use crate::ops::int8_matmul::GROUP;
use crate::simd::lanes::prefetch;
use std::arch::x86_64::*;

const NV: usize = PANEL / 16;

/// # Safety
/// AVX-512 F, BW and VNNI; the pointers of `few` are valid for its sizes.
pub(super) unsafe fn panel(few: &Few, out: &mut [[f32; PANEL]; ROWS]) {
    // SAFETY: passed on.
    unsafe {
        match few.rows {
            1 => rows::<1>(few, out),
            2 => rows::<2>(few, out),
            3 => rows::<3>(few, out),
            _ => rows::<ROWS>(few, out),
        }
    }
}

/// # Safety
/// As for [`panel`], with `few.rows >= R`.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn rows<const R: usize>(few: &Few, out: &mut [[f32; PANEL]; ROWS]) {
    let mut acc = [[_mm512_setzero_ps(); NV]; R];
    for g in 0..few.groups {
        // SAFETY: block g of the panel.
        let block = unsafe { few.weights.add(g * few.block) };
        let mut sum = [[_mm512_setzero_si512(); NV]; R];
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: a sum for each group of each row.
            *sum = [_mm512_set1_epi32(-128 * unsafe { *few.sums.add(r * few.groups + g) }); NV];
        }
        for k in 0..GROUP / 4 {
            (0..4 * PANEL).step_by(64).for_each(|line| prefetch(block.wrapping_add(4 * k * PANEL + line)));
            // SAFETY: four inputs of 64 outputs.
            let w: [__m512i; NV] =
                std::array::from_fn(|v| unsafe { _mm512_loadu_si512(block.add((k * PANEL + 16 * v) * 4).cast()) });
            for (r, sum) in sum.iter_mut().enumerate() {
                let at = (r * few.groups + g) * GROUP + 4 * k;
                // SAFETY: four inputs of row r.
                let x = _mm512_set1_epi32(unsafe { few.x.add(at).cast::<i32>().read_unaligned() });
                for (sum, w) in sum.iter_mut().zip(w) {
                    *sum = _mm512_dpbusd_epi32(*sum, w, x);
                }
            }
        }
        for v in 0..NV {
            // SAFETY: 64 scales follow the codes.
            let scale = unsafe {
                let scales = block.add(CODES);
                if few.half {
                    _mm512_cvtph_ps(_mm256_loadu_si256(scales.add(32 * v).cast()))
                } else {
                    _mm512_loadu_ps(scales.add(64 * v).cast())
                }
            };
            for (acc, sum) in acc.iter_mut().zip(&sum) {
                acc[v] = _mm512_add_ps(acc[v], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[v])));
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        for (acc, out) in acc.iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
        }
    }
}
