//! AVX-512: a register tile of 12 x 32 (24 accumulators), and packing.

use super::{
    Tile,
    pack::{COPY_ROWS, Panel},
};
use std::arch::x86_64::*;

pub(super) const MR: usize = 12;
pub(super) const NR: usize = 32;

/// One function per number of rows, so that the accumulators are registers; A direct or packed.
macro_rules! rows {
    ($direct:literal: $($r:literal)*) => { [$(tile_rows::<$r, $direct>),*] };
}
static DIRECT: [unsafe fn(&Tile); MR] = rows!(true: 1 2 3 4 5 6 7 8 9 10 11 12);
static PACKED: [unsafe fn(&Tile); MR] = rows!(false: 1 2 3 4 5 6 7 8 9 10 11 12);

/// # Safety
/// AVX-512F; the pointers of `t` are valid for its shape; `1 <= t.rows <= MR`, `t.cols <= NR`.
pub(super) unsafe fn tile(t: &Tile) {
    let table = if t.a_direct { &DIRECT } else { &PACKED };
    // SAFETY: the caller's contract.
    unsafe { table[t.rows - 1](t) }
}

/// # Safety
/// As for [`tile`], with `t.rows == R` and `t.a_direct == DIRECT`.
#[target_feature(enable = "avx512f")]
unsafe fn tile_rows<const R: usize, const DIRECT: bool>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    for p in 0..t.k {
        // SAFETY: row p of the panel of B.
        let b = unsafe { [_mm512_loadu_ps(t.b.add(p * NR)), _mm512_loadu_ps(t.b.add(p * NR + 16))] };
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = if DIRECT { r * t.a_stride + p } else { p * MR + r };
            // SAFETY: element (r, p) of A.
            let a = _mm512_set1_ps(unsafe { *t.a.add(at) });
            acc[0] = _mm512_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm512_fmadd_ps(a, b[1], acc[1]);
        }
    }
    let (alpha, beta) = (_mm512_set1_ps(t.alpha), _mm512_set1_ps(t.beta));
    let width = low_mask(t.cols);
    for (r, acc) in acc.iter().enumerate() {
        let skip = (t.skip + r as isize).clamp(0, 32) as u32;
        let mask = width & (u64::from(u32::MAX) << skip) as u32;
        for (v, &acc) in acc.iter().enumerate() {
            let mask = (mask >> (16 * v)) as u16;
            // SAFETY: masked lanes lie in C; the address of a tile's second half may lie behind C's end.
            unsafe {
                let c = t.c.wrapping_add(r * t.ldc + 16 * v);
                let out = if t.beta == 0.0 {
                    _mm512_mul_ps(alpha, acc)
                } else {
                    _mm512_fmadd_ps(alpha, acc, _mm512_mul_ps(beta, _mm512_maskz_loadu_ps(mask, c)))
                };
                _mm512_mask_storeu_ps(c, mask, out);
            }
        }
    }
}

/// The lowest `n <= 32` bits.
fn low_mask(n: usize) -> u32 {
    ((1u64 << n) - 1) as u32
}

/// Copies `k` rows, `src_stride` apart, to panels.
///
/// # Safety
/// AVX-512F; the source rows and the panels are valid.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_rows(src: *const f32, src_stride: usize, to: Panel) {
    for p0 in (0..to.k).step_by(COPY_ROWS) {
        for p in p0 + COPY_ROWS..to.k.min(p0 + 2 * COPY_ROWS) {
            for j in (0..to.width).step_by(16) {
                _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(p * src_stride + j).cast());
            }
        }
        for j in (0..to.width).step_by(to.stride) {
            let width = low_mask((to.width - j).min(to.stride));
            for p in p0..to.k.min(p0 + COPY_ROWS) {
                // SAFETY: the masks stay inside the row; a masked half may have its address behind the source.
                unsafe {
                    let (src, dst) = (src.add(p * src_stride + j), to.dst.add(j * to.k + p * to.stride));
                    _mm512_mask_storeu_ps(dst, width as u16, _mm512_maskz_loadu_ps(width as u16, src));
                    if to.stride > 16 {
                        let (mask, src, dst) = ((width >> 16) as u16, src.wrapping_add(16), dst.wrapping_add(16));
                        _mm512_mask_storeu_ps(dst, mask, _mm512_maskz_loadu_ps(mask, src));
                    }
                }
            }
        }
    }
}

/// `dst[j * dst_stride + i] = src[i * src_stride + j]` for `rows` x `cols` elements.
///
/// # Safety
/// AVX-512F; both areas are valid and disjoint.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(
    src: *const f32,
    src_stride: usize,
    (rows, cols): (usize, usize),
    dst: *mut f32,
    dst_stride: usize,
) {
    for i in (0..rows).step_by(16) {
        let height = (rows - i).min(16);
        let store = low_mask(height) as u16;
        for j in (0..cols).step_by(16) {
            let width = (cols - j).min(16);
            let load = low_mask(width) as u16;
            let mut v = [_mm512_setzero_ps(); 16];
            for (r, v) in v.iter_mut().enumerate() {
                if r < height {
                    // SAFETY: row i + r exists, and the mask stays inside it.
                    *v = unsafe { _mm512_maskz_loadu_ps(load, src.add((i + r) * src_stride + j)) };
                }
            }
            for (r, v) in transpose16(v).into_iter().enumerate().take(width) {
                // SAFETY: as above, transposed.
                unsafe { _mm512_mask_storeu_ps(dst.add((j + r) * dst_stride + i), store, v) };
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn transpose16(v: [__m512; 16]) -> [__m512; 16] {
    let mut a = v;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    // Quad q, column c: lane l holds column 4 l + c of rows 4 q .. 4 q + 4.
    let mut b = a;
    for q in 0..4 {
        for h in 0..2 {
            let (lo, hi) = (_mm512_castps_pd(a[4 * q + h]), _mm512_castps_pd(a[4 * q + 2 + h]));
            b[4 * q + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
            b[4 * q + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
        }
    }
    let mut out = b;
    for c in 0..4 {
        let lo0 = _mm512_shuffle_f32x4::<0x44>(b[c], b[4 + c]);
        let hi0 = _mm512_shuffle_f32x4::<0xee>(b[c], b[4 + c]);
        let lo1 = _mm512_shuffle_f32x4::<0x44>(b[8 + c], b[12 + c]);
        let hi1 = _mm512_shuffle_f32x4::<0xee>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(lo0, lo1);
        out[4 + c] = _mm512_shuffle_f32x4::<0xdd>(lo0, lo1);
        out[8 + c] = _mm512_shuffle_f32x4::<0x88>(hi0, hi1);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(hi0, hi1);
    }
    out
}

/// Unpacks a panel of ternary weights. `codes` points at the first row's bytes of the panel's 32 columns, whose codes
/// begin at bit `shift`; rows are `row_bytes` and `scale_stride` apart, and one scale covers the panel's row.
///
/// # Safety
/// AVX-512 F and BW; 32 bytes of codes and one scale a row are readable, and 32 floats a row of the panel writable.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_ternary(
    codes: *const u8,
    row_bytes: usize,
    shift: i32,
    scales: *const f32,
    scale_stride: usize,
    to: Panel,
) {
    debug_assert_eq!(to.stride, NR);
    let values = _mm512_setr4_ps(-1.0, 0.0, 1.0, 0.0);
    let (shift, mask) = (_mm_cvtsi32_si128(shift), _mm256_set1_epi8(3));
    for p in 0..to.k {
        // SAFETY: the caller's contract.
        unsafe {
            let bytes = _mm256_loadu_si256(codes.add(p * row_bytes).cast());
            let bytes = _mm256_and_si256(_mm256_srl_epi16(bytes, shift), mask);
            let table = _mm512_mul_ps(values, _mm512_set1_ps(*scales.add(p * scale_stride)));
            let lo = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes));
            let hi = _mm512_cvtepu8_epi32(_mm256_extracti128_si256::<1>(bytes));
            _mm512_storeu_ps(to.dst.add(p * NR), _mm512_permutexvar_ps(lo, table));
            _mm512_storeu_ps(to.dst.add(p * NR + 16), _mm512_permutexvar_ps(hi, table));
        }
    }
}

/// Unpacks `width` columns of int8 rows, `src_stride` apart, each row times its step.
///
/// # Safety
/// AVX-512 F, BW and VL; the source rows, `k` steps and the panel are valid.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_int8(src: *const i8, src_stride: usize, steps: *const f32, to: Panel) {
    for j in (0..to.width).step_by(16) {
        let mask = low_mask((to.width - j).min(16)) as u16;
        for p in 0..to.k {
            // SAFETY: the mask stays inside the row.
            unsafe {
                let codes = _mm_maskz_loadu_epi8(mask, src.add(p * src_stride + j));
                let x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
                let x = _mm512_mul_ps(x, _mm512_set1_ps(*steps.add(p)));
                _mm512_mask_storeu_ps(to.dst.add(p * to.stride + j), mask, x);
            }
        }
    }
}
