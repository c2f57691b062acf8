//! AVX2 with FMA: a register tile of 6 x 16 (12 accumulators), and packing.

use super::{
    Tile,
    pack::{COPY_ROWS, Panel},
};
use std::arch::x86_64::*;

pub(super) const MR: usize = 6;
pub(super) const NR: usize = 16;

/// One function per number of rows, so that the accumulators are registers; A direct or packed.
macro_rules! rows {
    ($direct:literal: $($r:literal)*) => { [$(tile_rows::<$r, $direct>),*] };
}
static DIRECT: [unsafe fn(&Tile); MR] = rows!(true: 1 2 3 4 5 6);
static PACKED: [unsafe fn(&Tile); MR] = rows!(false: 1 2 3 4 5 6);

/// # Safety
/// AVX2 and FMA; the pointers of `t` are valid for its shape; `1 <= t.rows <= MR`, `t.cols <= NR`.
pub(super) unsafe fn tile(t: &Tile) {
    let table = if t.a_direct { &DIRECT } else { &PACKED };
    // SAFETY: the caller's contract.
    unsafe { table[t.rows - 1](t) }
}

/// # Safety
/// As for [`tile`], with `t.rows == R` and `t.a_direct == DIRECT`.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_rows<const R: usize, const DIRECT: bool>(t: &Tile) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    for p in 0..t.k {
        // SAFETY: row p of the panel of B.
        let b = unsafe { [_mm256_loadu_ps(t.b.add(p * NR)), _mm256_loadu_ps(t.b.add(p * NR + 8))] };
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = if DIRECT { r * t.a_stride + p } else { p * MR + r };
            // SAFETY: element (r, p) of A.
            let a = _mm256_set1_ps(unsafe { *t.a.add(at) });
            acc[0] = _mm256_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm256_fmadd_ps(a, b[1], acc[1]);
        }
    }
    let whole = t.cols == NR && t.skip + (R as isize) <= 1;
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (r, acc) in acc.iter().enumerate() {
        for (v, &acc) in acc.iter().enumerate() {
            let c = t.c.wrapping_add(r * t.ldc + 8 * v);
            if whole {
                // SAFETY: the tile lies in C.
                unsafe { _mm256_storeu_ps(c, update(t, acc, || _mm256_loadu_ps(c))) };
                continue;
            }
            let lane = _mm256_add_epi32(lanes, _mm256_set1_epi32(8 * v as i32));
            let first = (t.skip + r as isize).max(0) as i32;
            let mask = _mm256_and_si256(
                _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1)),
                _mm256_cmpgt_epi32(_mm256_set1_epi32(t.cols as i32), lane),
            );
            // SAFETY: masked lanes lie in C; the address of a tile's second half may lie behind C's end.
            unsafe { _mm256_maskstore_ps(c, mask, update(t, acc, || _mm256_maskload_ps(c, mask))) };
        }
    }
}

/// alpha * acc + beta * C, without reading C where beta is 0.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn update(t: &Tile, acc: __m256, c: impl FnOnce() -> __m256) -> __m256 {
    let alpha = _mm256_set1_ps(t.alpha);
    if t.beta == 0.0 {
        _mm256_mul_ps(alpha, acc)
    } else {
        _mm256_fmadd_ps(alpha, acc, _mm256_mul_ps(_mm256_set1_ps(t.beta), c()))
    }
}

/// Copies `k` rows, `src_stride` apart, to panels.
///
/// # Safety
/// AVX2; the source rows and the panels are valid.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_rows(src: *const f32, src_stride: usize, to: Panel) {
    for p0 in (0..to.k).step_by(COPY_ROWS) {
        for j in (0..to.width).step_by(to.stride) {
            let width = (to.width - j).min(to.stride);
            for p in p0..to.k.min(p0 + COPY_ROWS) {
                // SAFETY: both rows hold `width` values.
                unsafe { copy_row(src.add(p * src_stride + j), to.dst.add(j * to.k + p * to.stride), width) };
            }
        }
    }
}

/// # Safety
/// AVX2; both hold `width` values.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn copy_row(src: *const f32, dst: *mut f32, width: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match width {
            NR => {
                _mm256_storeu_ps(dst, _mm256_loadu_ps(src));
                _mm256_storeu_ps(dst.add(8), _mm256_loadu_ps(src.add(8)));
            }
            MR => {
                _mm_storeu_ps(dst, _mm_loadu_ps(src));
                dst.add(4).cast::<u64>().write_unaligned(src.add(4).cast::<u64>().read_unaligned());
            }
            _ => (0..width).for_each(|j| *dst.add(j) = *src.add(j)),
        }
    }
}

/// `dst[j * dst_stride + i] = src[i * src_stride + j]` for `rows` x `cols` elements.
///
/// # Safety
/// AVX2; both areas are valid and disjoint.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(
    src: *const f32,
    src_stride: usize,
    (rows, cols): (usize, usize),
    dst: *mut f32,
    dst_stride: usize,
) {
    for i in (0..rows).step_by(8) {
        let height = (rows - i).min(8);
        for j in (0..cols).step_by(8) {
            let width = (cols - j).min(8);
            // SAFETY: the block lies inside both areas.
            unsafe {
                let (src, dst) = (src.add(i * src_stride + j), dst.add(j * dst_stride + i));
                if width < 8 || height < 6 {
                    (0..height * width).for_each(|e| {
                        let (r, c) = (e / width, e % width);
                        *dst.add(c * dst_stride + r) = *src.add(r * src_stride + c);
                    });
                    continue;
                }
                let mut v = [_mm256_setzero_ps(); 8];
                for (r, v) in v.iter_mut().enumerate().take(height) {
                    *v = _mm256_loadu_ps(src.add(r * src_stride));
                }
                let mask =
                    _mm256_cmpgt_epi32(_mm256_set1_epi32(height as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
                for (c, v) in transpose8(v).into_iter().enumerate() {
                    if height == 8 {
                        _mm256_storeu_ps(dst.add(c * dst_stride), v);
                    } else {
                        _mm256_maskstore_ps(dst.add(c * dst_stride), mask, v);
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn transpose8(v: [__m256; 8]) -> [__m256; 8] {
    let mut a = v;
    for i in 0..4 {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    // Half h, column c: lane l holds column 4 l + c of rows 4 h .. 4 h + 4.
    let mut b = a;
    for h in 0..2 {
        for c in 0..2 {
            b[4 * h + 2 * c] = _mm256_shuffle_ps::<0x44>(a[4 * h + c], a[4 * h + 2 + c]);
            b[4 * h + 2 * c + 1] = _mm256_shuffle_ps::<0xee>(a[4 * h + c], a[4 * h + 2 + c]);
        }
    }
    let mut out = b;
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(b[c], b[4 + c]);
        out[4 + c] = _mm256_permute2f128_ps::<0x31>(b[c], b[4 + c]);
    }
    out
}

/// Unpacks a panel of ternary weights. `codes` points at the first row's bytes of the panel's 16 columns, whose codes
/// begin at bit `shift`; rows are `row_bytes` and `scale_stride` apart, and one scale covers the panel's row.
///
/// # Safety
/// AVX2; 16 bytes of codes and one scale a row are readable, and 16 floats a row of the panel writable.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_ternary(
    codes: *const u8,
    row_bytes: usize,
    shift: i32,
    scales: *const f32,
    scale_stride: usize,
    to: Panel,
) {
    debug_assert_eq!(to.stride, NR);
    let values = _mm256_setr_ps(-1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0);
    let (shift, mask) = (_mm_cvtsi32_si128(shift), _mm_set1_epi8(3));
    for p in 0..to.k {
        // SAFETY: the caller's contract.
        unsafe {
            let bytes = _mm_loadu_si128(codes.add(p * row_bytes).cast());
            let bytes = _mm_and_si128(_mm_srl_epi16(bytes, shift), mask);
            let table = _mm256_mul_ps(values, _mm256_set1_ps(*scales.add(p * scale_stride)));
            let (lo, hi) = (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)));
            _mm256_storeu_ps(to.dst.add(p * NR), _mm256_permutevar8x32_ps(table, lo));
            _mm256_storeu_ps(to.dst.add(p * NR + 8), _mm256_permutevar8x32_ps(table, hi));
        }
    }
}

/// Unpacks `width` columns of int8 rows, `src_stride` apart, each row times its step.
///
/// # Safety
/// AVX2; the source rows, `k` steps and the panel are valid.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_int8(src: *const i8, src_stride: usize, steps: *const f32, to: Panel) {
    for p in 0..to.k {
        // SAFETY: both rows hold `width` values.
        unsafe {
            let (src, dst, step) = (src.add(p * src_stride), to.dst.add(p * to.stride), *steps.add(p));
            if to.width < NR {
                (0..to.width).for_each(|j| *dst.add(j) = f32::from(*src.add(j)) * step);
                continue;
            }
            let codes = _mm_loadu_si128(src.cast());
            let lo = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
            let hi = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(codes)));
            _mm256_storeu_ps(dst, _mm256_mul_ps(lo, _mm256_set1_ps(step)));
            _mm256_storeu_ps(dst.add(8), _mm256_mul_ps(hi, _mm256_set1_ps(step)));
        }
    }
}
