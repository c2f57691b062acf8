//! AVX-512: see the parent for the definitions.

use super::{MIN_MAX, scalar, scale};
use std::arch::x86_64::*;

/// Quantises one row of activations; returns its step.
///
/// # Safety
/// AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn row(x: &[f32], xq: &mut [i8]) -> f32 {
    assert_eq!(x.len(), xq.len());
    let lanes = |i: usize| ((1u32 << (x.len() - i).min(16)) - 1) as u16;
    let mut max = _mm512_set1_ps(MIN_MAX);
    for i in (0..x.len()).step_by(16) {
        // SAFETY: the mask stays inside x.
        let v = unsafe { _mm512_maskz_loadu_ps(lanes(i), x.as_ptr().add(i)) };
        // The second operand is the result where the first is NaN.
        max = _mm512_max_ps(_mm512_abs_ps(v), max);
    }
    let step = _mm512_reduce_max_ps(max) / 127.0;
    let (low, high) = (_mm512_set1_ps(-127.0), _mm512_set1_ps(127.0));
    for i in (0..x.len()).step_by(16) {
        // SAFETY: the mask stays inside x and xq.
        unsafe {
            let t = _mm512_div_ps(_mm512_maskz_loadu_ps(lanes(i), x.as_ptr().add(i)), _mm512_set1_ps(step));
            let t = _mm512_min_ps(_mm512_max_ps(t, low), high);
            // The processor's default rounding is half to even.
            let q = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(t));
            _mm_mask_storeu_epi8(xq.as_mut_ptr().add(i), lanes(i), q);
        }
    }
    step
}

/// Quantises one row of weights, whole groups of a multiple of 32.
///
/// # Safety
/// AVX-512 F, BW and VL; `codes` holds 32 bytes for each 128 weights begun, `scales` one value a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn ternary_row(w: &[f32], group: usize, codes: &mut [u8], scales: &mut [f32]) {
    for (w, s) in w.chunks_exact(group).zip(scales.iter_mut()) {
        // SAFETY: the group's length is 16 times the parameter.
        let sum = unsafe {
            match group {
                32 => sum_abs::<2>(w),
                64 => sum_abs::<4>(w),
                128 => sum_abs::<8>(w),
                256 => sum_abs::<16>(w),
                _ => scalar::sum_abs(w),
            }
        };
        *s = scale(sum, group);
    }
    for (run, bytes) in codes.chunks_exact_mut(32).enumerate() {
        let mut packed = _mm256_setzero_si256();
        for plane in 0..4 {
            let first = 128 * run + 32 * plane;
            let (mut plus, mut minus) = (0u32, 0u32);
            if let Some(w) = w.get(first..first + 32) {
                let half = 0.5 * scales[first / group];
                let (above, below) = (_mm512_set1_ps(half), _mm512_set1_ps(-half));
                // SAFETY: 32 weights.
                let v = unsafe { [_mm512_loadu_ps(w.as_ptr()), _mm512_loadu_ps(w.as_ptr().add(16))] };
                for (h, &v) in v.iter().enumerate() {
                    plus |= u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(v, above)) << (16 * h);
                    minus |= u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(v, below)) << (16 * h);
                }
            }
            let twos = _mm256_maskz_set1_epi8(plus, (2u8 << (2 * plane)) as i8);
            let ones = _mm256_maskz_set1_epi8(!(plus | minus), 1 << (2 * plane));
            packed = _mm256_or_si256(packed, _mm256_or_si256(twos, ones));
        }
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), packed) };
    }
}

/// Sum of |w| by adding halves.
///
/// # Safety
/// AVX-512F; `w` holds 16 * N values, N a power of two.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn sum_abs<const N: usize>(w: &[f32]) -> f32 {
    debug_assert_eq!(w.len(), 16 * N);
    let mut t = [_mm512_setzero_ps(); N];
    for (i, t) in t.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        *t = _mm512_abs_ps(unsafe { _mm512_loadu_ps(w.as_ptr().add(16 * i)) });
    }
    for level in (0..N.ilog2()).rev() {
        let half = 1 << level;
        for i in 0..half {
            t[i] = _mm512_add_ps(t[i], t[i + half]);
        }
    }
    let t = _mm512_add_ps(t[0], _mm512_shuffle_f32x4::<0x4e>(t[0], t[0]));
    let t = _mm512_castps512_ps256(t);
    let t = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps::<1>(t));
    let t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps::<1>(t, t)))
}
