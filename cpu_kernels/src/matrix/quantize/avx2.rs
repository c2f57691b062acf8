//! AVX2: see the parent for the definitions.

use super::{MIN_MAX, scalar, scale};
use std::arch::x86_64::*;

/// Quantises one row of activations; returns its step.
///
/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn row(x: &[f32], xq: &mut [i8]) -> f32 {
    assert_eq!(x.len(), xq.len());
    let (blocks, tail) = x.as_chunks::<32>();
    let mut max = _mm256_set1_ps(MIN_MAX);
    for v in blocks.as_flattened().chunks_exact(8) {
        // SAFETY: eight values.
        let v = unsafe { _mm256_loadu_ps(v.as_ptr()) };
        // The second operand is the result where the first is NaN.
        max = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), v), max);
    }
    let m = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps::<1>(max));
    let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    let m = _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps::<1>(m, m)));
    let step = tail.iter().fold(m, |max, x| if x.abs() > max { x.abs() } else { max }) / 127.0;
    let (low, high) = (_mm256_set1_ps(-127.0), _mm256_set1_ps(127.0));
    let (out, out_tail) = xq.as_chunks_mut::<32>();
    for (block, out) in blocks.iter().zip(out) {
        let q = |i: usize| {
            // SAFETY: four times eight values.
            let t = _mm256_div_ps(unsafe { _mm256_loadu_ps(block.as_ptr().add(8 * i)) }, _mm256_set1_ps(step));
            // The processor's default rounding is half to even.
            _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(t, low), high))
        };
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), narrow([q(0), q(1), q(2), q(3)])) };
    }
    for (x, out) in tail.iter().zip(out_tail) {
        *out = scalar::code(x / step);
    }
    step
}

/// 32 small integers to bytes, in order.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow(v: [__m256i; 4]) -> __m256i {
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    // Each 128-bit lane now holds its halves of the four vectors.
    _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

/// Quantises one row of weights, whole groups of a multiple of 32.
///
/// # Safety
/// AVX2; `codes` holds 32 bytes for each 128 weights begun, `scales` one value a group.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn ternary_row(w: &[f32], group: usize, codes: &mut [u8], scales: &mut [f32]) {
    for (w, s) in w.chunks_exact(group).zip(scales.iter_mut()) {
        // SAFETY: the group's length is 8 times the parameter.
        let sum = unsafe {
            match group {
                32 => sum_abs::<4>(w),
                64 => sum_abs::<8>(w),
                128 => sum_abs::<16>(w),
                256 => sum_abs::<32>(w),
                _ => scalar::sum_abs(w),
            }
        };
        *s = scale(sum, group);
    }
    for (run, bytes) in codes.chunks_exact_mut(32).enumerate() {
        let mut packed = _mm256_setzero_si256();
        for plane in 0..4 {
            let first = 128 * run + 32 * plane;
            let mut code = _mm256_set1_epi8(1);
            if let Some(w) = w.get(first..first + 32) {
                let half = 0.5 * scales[first / group];
                let (above, below) = (_mm256_set1_ps(half), _mm256_set1_ps(-half));
                let sign = |i: usize| {
                    // SAFETY: four times eight weights.
                    let v = unsafe { _mm256_loadu_ps(w.as_ptr().add(8 * i)) };
                    // A true comparison is -1 as an integer.
                    let plus = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(v, above));
                    let minus = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(v, below));
                    _mm256_sub_epi32(minus, plus)
                };
                code = _mm256_add_epi8(code, narrow([sign(0), sign(1), sign(2), sign(3)]));
            }
            // Codes are at most 2, so no bit crosses into the neighbouring byte.
            let shifted = _mm256_sll_epi16(code, _mm_cvtsi32_si128(2 * plane as i32));
            packed = _mm256_or_si256(packed, shifted);
        }
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), packed) };
    }
}

/// Sum of |w| by adding halves.
///
/// # Safety
/// AVX2; `w` holds 8 * N values, N a power of two.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sum_abs<const N: usize>(w: &[f32]) -> f32 {
    debug_assert_eq!(w.len(), 8 * N);
    let mut t = [_mm256_setzero_ps(); N];
    for (i, t) in t.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        *t = _mm256_andnot_ps(_mm256_set1_ps(-0.0), unsafe { _mm256_loadu_ps(w.as_ptr().add(8 * i)) });
    }
    for level in (0..N.ilog2()).rev() {
        let half = 1 << level;
        for i in 0..half {
            t[i] = _mm256_add_ps(t[i], t[i + half]);
        }
    }
    let t = _mm_add_ps(_mm256_castps256_ps128(t[0]), _mm256_extractf128_ps::<1>(t[0]));
    let t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps::<1>(t, t)))
}
