//! Kernels of [`Layout::Rows16`](super::Layout): multiply-adds of bytes, an output a 32-bit lane.
//!
//! Codes 0, 1, 2 are the unsigned factor; the offset of 1 is taken off by starting each group from minus the sum of its
//! activations. A code is masked but not shifted down: bits 2-3 make four times the product, and so on, and the sums of
//! each place are shifted when a group is complete, which is exact.
#![cfg(target_arch = "x86_64")]

use super::{Job, Kernel, PackedTernary, packed::ScalePtr};
use crate::matrix::ternary_gemm::negated_sums;
use crate::simd::lanes::prefetch;
use std::arch::x86_64::*;

pub(super) const AVX512: Kernel = Kernel { rows: ROWS, prepared_bytes, run: avx512 };
pub(super) const AVX2: Kernel = Kernel { rows: ROWS, prepared_bytes, run: avx2 };

/// Rows of activations that share one pass over the weights.
const ROWS: usize = 4;

/// One sum a group.
fn prepared_bytes(w: &PackedTernary) -> usize {
    4 * w.dim() / w.group()
}

/// # Safety
/// As [`Kernel::run`] requires.
unsafe fn avx512(job: &Job, prepared: &mut [u8]) {
    let sums: &mut [i32] = bytemuck::cast_slice_mut(prepared);
    // SAFETY: the level is available and includes AVX2; there are `rows` rows and a sum for each of their groups.
    unsafe {
        negated_sums(job.x, job.w.group(), sums);
        match job.steps.len() {
            1 => avx512_rows::<1, 2>(job, sums),
            2 => avx512_rows::<2, 1>(job, sums),
            3 => avx512_rows::<3, 1>(job, sums),
            _ => avx512_rows::<4, 1>(job, sums),
        }
    }
}

/// `R` rows, with `U` sets of sums a row: enough of them to hide the latency of `vpdpbusd`.
///
/// # Safety
/// AVX-512 F and VNNI; `R` rows, and `sums` of each group.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_rows<const R: usize, const U: usize>(job: &Job, sums: &[i32]) {
    let (dim, group) = (job.w.dim(), job.w.group());
    let groups = dim / group;
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8));
    let (x, sums, scales) = (job.x.as_ptr(), sums.as_ptr(), job.w.scales());
    for tile in job.tiles.clone() {
        let mut codes = job.w.codes()[tile * dim * 4..][..dim * 4].as_ptr();
        let mut acc = [_mm512_setzero_ps(); R];
        for g in 0..groups {
            let mut sum = [[[_mm512_setzero_si512(); 4]; U]; R];
            for k in (g * group..(g + 1) * group).step_by(16 * U) {
                for u in 0..U {
                    prefetch(codes.wrapping_add(64 * u));
                    // SAFETY: inputs k + 16 u..k + 16 u + 16 of a tile.
                    let q = unsafe { _mm512_loadu_si512(codes.add(64 * u).cast()) };
                    for p in 0..4 {
                        let w = _mm512_and_si512(q, masks[p]);
                        for (r, sum) in sum.iter_mut().enumerate() {
                            // SAFETY: inputs k + 16 u + 4 p..+ 4 of row r.
                            let x = unsafe { x.add(r * dim + k + 16 * u + 4 * p).cast::<i32>().read_unaligned() };
                            sum[u][p] = _mm512_dpbusd_epi32(sum[u][p], w, _mm512_set1_epi32(x));
                        }
                    }
                }
                codes = codes.wrapping_add(64 * U);
            }
            // SAFETY: a tile has 16 scales a group.
            let scale = unsafe { load16(scales, (tile * groups + g) * 16) };
            for (r, (acc, sum)) in acc.iter_mut().zip(&sum).enumerate() {
                let place = |p: usize| sum[1..].iter().fold(sum[0][p], |a, s| _mm512_add_epi32(a, s[p]));
                // SAFETY: the row has a sum for each group.
                let start = _mm512_set1_epi32(unsafe { *sums.add(r * groups + g) });
                let low = _mm512_add_epi32(_mm512_add_epi32(start, place(0)), _mm512_srai_epi32::<2>(place(1)));
                let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(place(2)), _mm512_srai_epi32::<6>(place(3)));
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
                *acc = _mm512_add_ps(*acc, _mm512_mul_ps(scale, sum));
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            let mut out = [0.0f32; 16];
            // SAFETY: 16 floats; outputs 16 tile.. are this job's.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(_mm512_set1_ps(job.steps[r]), *acc));
                job.store(r, 16 * tile, &out);
            }
        }
    }
}

/// # Safety
/// AVX-512F; 16 scales from `at` on.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load16(scales: ScalePtr, at: usize) -> __m512 {
    // SAFETY: by contract.
    unsafe {
        match scales {
            ScalePtr::Half(s) => _mm512_cvtph_ps(_mm256_loadu_si256(s.add(at).cast())),
            ScalePtr::Single(s) => _mm512_loadu_ps(s.add(at)),
        }
    }
}

/// # Safety
/// As [`Kernel::run`] requires.
unsafe fn avx2(job: &Job, prepared: &mut [u8]) {
    let sums: &mut [i32] = bytemuck::cast_slice_mut(prepared);
    // SAFETY: the level is available; there are `rows` rows and a sum for each of their groups.
    unsafe {
        negated_sums(job.x, job.w.group(), sums);
        match job.steps.len() {
            1 => avx2_rows::<1, 2>(job, sums),
            2 => avx2_rows::<2, 2>(job, sums),
            3 => avx2_rows::<3, 1>(job, sums),
            _ => avx2_rows::<4, 1>(job, sums),
        }
    }
}

/// Inputs whose products may be summed as i16: 16 of them add at most 2 * 4 * 2 * 2 * 127 = 4064 to a sum of bits 2-3.
const NARROW: usize = 128;

/// `R` rows against `H` halves of a tile at once: as many sums as there are registers for.
///
/// # Safety
/// AVX2 and F16C; `R` rows, and `sums` of each group.
#[target_feature(enable = "avx2,f16c")]
unsafe fn avx2_rows<const R: usize, const H: usize>(job: &Job, sums: &[i32]) {
    for tile in job.tiles.clone() {
        for half in (0..2).step_by(H) {
            // SAFETY: passed on.
            let acc = unsafe { avx2_tile::<R, H>(job, sums, tile, half) };
            for (r, acc) in acc.iter().enumerate() {
                for (h, acc) in acc.iter().enumerate() {
                    let mut out = [0.0f32; 8];
                    // SAFETY: 8 floats; outputs of this tile are this job's.
                    unsafe {
                        _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(_mm256_set1_ps(job.steps[r]), *acc));
                        job.store(r, 16 * tile + 8 * (half + h), &out);
                    }
                }
            }
        }
    }
}

/// `H` halves of a tile, from `half` on, but for the steps.
///
/// # Safety
/// As for [`avx2_rows`]; the tile exists.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn avx2_tile<const R: usize, const H: usize>(
    job: &Job,
    sums: &[i32],
    tile: usize,
    half: usize,
) -> [[__m256; H]; R] {
    let (dim, group) = (job.w.dim(), job.w.group());
    let groups = dim / group;
    let (sums, scales) = (sums.as_ptr(), job.w.scales());
    let codes = job.w.codes()[tile * dim * 4..][..dim * 4].as_ptr().wrapping_add(32 * half);
    let mut acc = [[_mm256_setzero_ps(); H]; R];
    for g in 0..groups {
        let mut sum = [[_mm256_setzero_si256(); H]; R];
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: the row has a sum for each group.
            *sum = [_mm256_set1_epi32(unsafe { *sums.add(r * groups + g) }); H];
        }
        let (mut k, end) = (g * group, (g + 1) * group);
        while k < end {
            // SAFETY: k..end are inputs.
            unsafe { avx2_narrow(job, codes, k, end.min(k + NARROW), &mut sum) };
            k += NARROW;
        }
        for h in 0..H {
            // SAFETY: a tile has 16 scales a group.
            let scale = unsafe { load8(scales, (tile * groups + g) * 16 + 8 * (half + h)) };
            for (acc, sum) in acc.iter_mut().zip(&sum) {
                acc[h] = _mm256_add_ps(acc[h], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum[h])));
            }
        }
    }
    acc
}

/// Adds the products of inputs k..end, at most [`NARROW`] of them.
///
/// # Safety
/// AVX2; `R` rows; `codes` are those of a tile or its second half.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn avx2_narrow<const R: usize, const H: usize>(
    job: &Job,
    codes: *const u8,
    k: usize,
    end: usize,
    to: &mut [[__m256i; H]; R],
) {
    let (x, dim) = (job.x.as_ptr(), job.w.dim());
    let masks = [_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c)];
    let mut sum = [[[_mm256_setzero_si256(); 2]; H]; R];
    for k in (k..end).step_by(16) {
        prefetch(codes.wrapping_add(4 * k));
        for h in 0..H {
            // SAFETY: inputs k..k + 16 of half a tile.
            let q = unsafe { _mm256_loadu_si256(codes.add(4 * k + 32 * h).cast()) };
            let places = [q, _mm256_srli_epi16::<4>(q)];
            for p in 0..4 {
                let w = _mm256_and_si256(places[p / 2], masks[p % 2]);
                for (r, sum) in sum.iter_mut().enumerate() {
                    // SAFETY: inputs k + 4 p..+ 4 of row r.
                    let x = unsafe { x.add(r * dim + k + 4 * p).cast::<i32>().read_unaligned() };
                    let product = _mm256_maddubs_epi16(w, _mm256_set1_epi32(x));
                    sum[h][p % 2] = _mm256_add_epi16(sum[h][p % 2], product);
                }
            }
        }
    }
    for (to, sum) in to.iter_mut().zip(sum) {
        for (to, [low, high]) in to.iter_mut().zip(sum) {
            let narrow = _mm256_add_epi16(low, _mm256_srai_epi16::<2>(high));
            *to = _mm256_add_epi32(*to, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
        }
    }
}

/// # Safety
/// AVX2 and F16C; 8 scales from `at` on.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub(super) unsafe fn load8(scales: ScalePtr, at: usize) -> __m256 {
    // SAFETY: by contract.
    unsafe {
        match scales {
            ScalePtr::Half(s) => _mm256_cvtph_ps(_mm_loadu_si128(s.add(at).cast())),
            ScalePtr::Single(s) => _mm256_loadu_ps(s.add(at)),
        }
    }
}
