//! Kernels of [`Layout::Pairs32`](super::Layout): two weights are four bits, which look their sum up.
//!
//! For each pair of activations (a, b) a table of 16 holds `(c0 - 1) a + (c1 - 1) b` at `c0 + 4 c1`, as
//! `low + 128 high`: low in 0..128, so that two of them add up in a byte, high in -2..=1, so that 64 of them do. Bytes
//! become words by adding the words that they lie in and, apart, the upper bytes of these.

use super::{Job, Kernel, PackedTernary};

#[cfg(target_arch = "x86_64")]
pub(super) const AVX2: Kernel = Kernel { rows: 1, prepared_bytes, run: avx2::run };
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) const SIMD128: Kernel = Kernel { rows: 1, prepared_bytes, run: simd128::run };

/// Inputs whose pairs may be summed in bytes (high) and words (low).
const NARROW: usize = 128;

/// Bytes of codes and of tables for each four inputs.
const CODES: usize = 32;
const TABLES: usize = 64;

/// A pair's table: 16 low bytes, then 16 high ones.
fn prepared_bytes(w: &PackedTernary) -> usize {
    w.dim() / 4 * TABLES
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use crate::matrix::ternary_gemv::rows16::load8;
    use crate::simd::lanes::prefetch;
    use std::arch::x86_64::*;

    /// # Safety
    /// As [`Kernel::run`] requires.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) unsafe fn run(job: &Job, prepared: &mut [u8]) {
        for (x, to) in job.x.as_chunks().0.iter().zip(prepared.as_chunks_mut().0) {
            table(*x, to);
        }
        let (dim, group) = (job.w.dim(), job.w.group());
        let (groups, scales) = (dim / group, job.w.scales());
        for tile in job.tiles.clone() {
            let codes = job.w.codes()[tile * dim * 8..][..dim * 8].as_ptr();
            let mut acc = [_mm256_setzero_ps(); 4];
            for g in 0..groups {
                let mut sum = [_mm256_setzero_si256(); 4];
                let end = (g + 1) * group;
                for k in (g * group..end).step_by(NARROW) {
                    // SAFETY: k..end are inputs, of which there are codes and tables.
                    let narrow = unsafe { narrow_sums(codes, prepared.as_ptr(), k, end.min(k + NARROW)) };
                    for (sum, narrow) in sum.iter_mut().zip(narrow) {
                        *sum = _mm256_add_epi32(*sum, _mm256_cvtepi16_epi32(narrow));
                    }
                }
                for (v, (acc, sum)) in acc.iter_mut().zip(sum).enumerate() {
                    // SAFETY: a tile has 32 scales a group.
                    let scale = unsafe { load8(scales, (tile * groups + g) * 32 + 8 * v) };
                    *acc = _mm256_add_ps(*acc, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
                }
            }
            let mut out = [0.0f32; 32];
            for (out, acc) in out.chunks_exact_mut(8).zip(acc) {
                // SAFETY: 8 floats.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(_mm256_set1_ps(job.steps[0]), acc)) };
            }
            // SAFETY: outputs 32 tile.. are this job's.
            unsafe { job.store(0, 32 * tile, &out) };
        }
    }

    /// The table of a pair.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn table(x: [i8; 2], to: &mut [u8; TABLES / 2]) {
        let x = _mm256_set1_epi16(i16::from_le_bytes(x.map(|x| x as u8)));
        // Each word is a c0 and its c1.
        let codes = _mm256_setr_epi16(
            0x000, 0x001, 0x002, 0x003, 0x100, 0x101, 0x102, 0x103, 0x200, 0x201, 0x202, 0x203, 0x300, 0x301, 0x302,
            0x303,
        );
        let sum = _mm256_sub_epi16(_mm256_maddubs_epi16(codes, x), _mm256_maddubs_epi16(_mm256_set1_epi8(1), x));
        let (low, high) = (_mm256_and_si256(sum, _mm256_set1_epi16(127)), _mm256_srai_epi16::<7>(sum));
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) };
    }

    /// Sums over inputs k..end, at most [`NARROW`] of them, as i16: outputs 0..8, 8..16, 16..24, 24..32 of a tile.
    ///
    /// # Safety
    /// AVX2; there are codes and tables for the inputs.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn narrow_sums(codes: *const u8, tables: *const u8, k: usize, end: usize) -> [__m128i; 4] {
        let nibble = _mm256_set1_epi8(15);
        let [mut low, mut low_odd, mut high] = [_mm256_setzero_si256(); 3];
        for i in k / 4..end / 4 {
            prefetch(codes.wrapping_add(CODES * i));
            // SAFETY: inputs 4 i..4 i + 4 of a tile; their two tables.
            let (q, [low0, high0, low1, high1]) = unsafe {
                let table = tables.add(TABLES * i);
                let part = |p: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(16 * p).cast()));
                (_mm256_loadu_si256(codes.add(CODES * i).cast()), [part(0), part(1), part(2), part(3)])
            };
            let first = _mm256_and_si256(q, nibble);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(q), nibble);
            let lows = _mm256_add_epi8(_mm256_shuffle_epi8(low0, first), _mm256_shuffle_epi8(low1, second));
            let highs = _mm256_add_epi8(_mm256_shuffle_epi8(high0, first), _mm256_shuffle_epi8(high1, second));
            low = _mm256_add_epi16(low, lows);
            low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16::<8>(lows));
            high = _mm256_add_epi8(high, highs);
        }
        let low_even = _mm256_sub_epi16(low, _mm256_slli_epi16::<8>(low_odd));
        let high_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(high));
        let even = _mm256_add_epi16(low_even, _mm256_slli_epi16::<7>(high_even));
        let odd = _mm256_add_epi16(low_odd, _mm256_slli_epi16::<7>(_mm256_srai_epi16::<8>(high)));
        let halves = |v| (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let ((a, b), (c, d)) = (halves(even), halves(odd));
        [a, b, c, d]
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use super::*;
    use crate::matrix::ternary_gemv::packed::ScalePtr;
    use std::arch::wasm32::*;

    /// # Safety
    /// As [`Kernel::run`] requires.
    pub(super) unsafe fn run(job: &Job, prepared: &mut [u8]) {
        for (x, to) in job.x.as_chunks().0.iter().zip(prepared.as_chunks_mut().0) {
            table(*x, to);
        }
        let (dim, group) = (job.w.dim(), job.w.group());
        let (groups, scales) = (dim / group, job.w.scales());
        for tile in job.tiles.clone() {
            let codes = job.w.codes()[tile * dim * 8..][..dim * 8].as_ptr();
            let mut acc = [f32x4_splat(0.0); 8];
            for g in 0..groups {
                let mut sum = [i32x4_splat(0); 8];
                let end = (g + 1) * group;
                for k in (g * group..end).step_by(NARROW) {
                    // SAFETY: k..end are inputs, of which there are codes and tables.
                    let narrow = unsafe { narrow_sums(codes, prepared.as_ptr(), k, end.min(k + NARROW)) };
                    for (sum, narrow) in sum.chunks_exact_mut(2).zip(narrow) {
                        sum[0] = i32x4_add(sum[0], i32x4_extend_low_i16x8(narrow));
                        sum[1] = i32x4_add(sum[1], i32x4_extend_high_i16x8(narrow));
                    }
                }
                for (v, (acc, sum)) in acc.iter_mut().zip(sum).enumerate() {
                    // SAFETY: a tile has 32 scales a group.
                    let scale = unsafe { load4(scales, (tile * groups + g) * 32 + 4 * v) };
                    *acc = f32x4_add(*acc, f32x4_mul(scale, f32x4_convert_i32x4(sum)));
                }
            }
            let mut out = [0.0f32; 32];
            for (out, acc) in out.chunks_exact_mut(4).zip(acc) {
                // SAFETY: 4 floats.
                unsafe { v128_store(out.as_mut_ptr().cast(), f32x4_mul(f32x4_splat(job.steps[0]), acc)) };
            }
            // SAFETY: outputs 32 tile.. are this job's.
            unsafe { job.store(0, 32 * tile, &out) };
        }
    }

    /// The table of a pair.
    #[inline(always)]
    fn table([a, b]: [i8; 2], to: &mut [u8; TABLES / 2]) {
        let (a, b) = (i16x8_splat(i16::from(a)), i16x8_splat(i16::from(b)));
        let first = i16x8_mul(a, i16x8(-1, 0, 1, 2, -1, 0, 1, 2));
        let sums = [i16x8(-1, -1, -1, -1, 0, 0, 0, 0), i16x8(1, 1, 1, 1, 2, 2, 2, 2)]
            .map(|second| i16x8_add(first, i16x8_mul(b, second)));
        let [low0, low1] = sums.map(|sum| v128_and(sum, i16x8_splat(127)));
        let [high0, high1] = sums.map(|sum| i16x8_shr(sum, 7));
        // SAFETY: 32 bytes.
        unsafe {
            v128_store(to.as_mut_ptr().cast(), i8x16_narrow_i16x8(low0, low1));
            v128_store(to.as_mut_ptr().add(16).cast(), i8x16_narrow_i16x8(high0, high1));
        }
    }

    /// Sums over inputs k..end, at most [`NARROW`] of them, as i16: outputs 0..8, 8..16, 16..24, 24..32 of a tile.
    ///
    /// # Safety
    /// There are codes and tables for the inputs.
    #[inline(always)]
    unsafe fn narrow_sums(codes: *const u8, tables: *const u8, k: usize, end: usize) -> [v128; 4] {
        let nibble = i8x16_splat(15);
        // Of outputs 0, 16, ..., 7, 23 and 8, 24, ..., 15, 31.
        let [mut low, mut low_odd, mut high] = [[i16x8_splat(0); 2]; 3];
        for i in k / 4..end / 4 {
            // SAFETY: the two tables of inputs 4 i..4 i + 4.
            let [low0, high0, low1, high1] =
                [0, 1, 2, 3].map(|p| unsafe { v128_load(tables.add(TABLES * i + 16 * p).cast()) });
            for h in 0..2 {
                // SAFETY: these inputs, of half a tile.
                let q = unsafe { v128_load(codes.add(CODES * i + 16 * h).cast()) };
                let (first, second) = (v128_and(q, nibble), u8x16_shr(q, 4));
                let lows = i8x16_add(i8x16_swizzle(low0, first), i8x16_swizzle(low1, second));
                let highs = i8x16_add(i8x16_swizzle(high0, first), i8x16_swizzle(high1, second));
                low[h] = i16x8_add(low[h], lows);
                low_odd[h] = i16x8_add(low_odd[h], u16x8_shr(lows, 8));
                high[h] = i8x16_add(high[h], highs);
            }
        }
        let even = |h: usize| {
            let low_even = i16x8_sub(low[h], i16x8_shl(low_odd[h], 8));
            i16x8_add(low_even, i16x8_shl(i16x8_shr(i16x8_shl(high[h], 8), 8), 7))
        };
        let odd = |h: usize| i16x8_add(low_odd[h], i16x8_shl(i16x8_shr(high[h], 8), 7));
        [even(0), even(1), odd(0), odd(1)]
    }

    /// # Safety
    /// 4 scales from `at` on.
    #[inline(always)]
    unsafe fn load4(scales: ScalePtr, at: usize) -> v128 {
        // SAFETY: by contract.
        unsafe {
            match scales {
                ScalePtr::Half(s) => {
                    // Exponents are biased by 15 as f16 and by 127 as f32; the product is exact, subnormals included.
                    let bits = u32x4_load_extend_u16x4(s.add(at));
                    let size = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
                    let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
                    v128_or(f32x4_mul(size, f32x4_splat(f32::from_bits((127 + 112) << 23))), sign)
                }
                ScalePtr::Single(s) => v128_load(s.add(at).cast()),
            }
        }
    }
}
