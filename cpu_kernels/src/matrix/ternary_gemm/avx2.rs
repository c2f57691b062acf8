//! AVX2: a register tile of 4 rows x 16 outputs, one `vpmaddubsw` for 8 outputs x 4 inputs.
//!
//! Products are summed as i16: two of them are at most 2 * 2 * 127 = 508, and 64 steps of that stay below 32,767, so
//! the sums are widened to i32 every 256 inputs.

use super::Tile;
use crate::matrix::gemm::packed_row_bytes;
use std::arch::x86_64::*;

pub(super) const MR: usize = 4;
const NV: usize = 2;
pub(super) const NR: usize = 8 * NV;
const WIDEN: usize = 256;

static TILES: [unsafe fn(&Tile); MR] = [tile_rows::<1>, tile_rows::<2>, tile_rows::<3>, tile_rows::<4>];

/// # Safety
/// AVX2; the pointers of `t` are valid for its shape; `1 <= t.rows <= MR`, `t.cols <= NR`.
pub(super) unsafe fn tile(t: &Tile) {
    // SAFETY: the caller's contract.
    unsafe { TILES[t.rows - 1](t) }
}

/// # Safety
/// As for [`tile`], with `t.rows == R`.
#[target_feature(enable = "avx2")]
unsafe fn tile_rows<const R: usize>(t: &Tile) {
    let groups = t.dim / t.group;
    let mut acc = [[_mm256_setzero_ps(); NV]; R];
    for g in 0..groups {
        let mut sum = [[_mm256_setzero_si256(); NV]; R];
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: the row has a sum for each group.
            *sum = [_mm256_set1_epi32(unsafe { *t.sums.add(r * groups + g) }); NV];
        }
        let end = (g + 1) * t.group;
        for k in (g * t.group..end).step_by(WIDEN) {
            // SAFETY: k..end are inputs.
            let narrow = unsafe { narrow_sums::<R>(t, k, end.min(k + WIDEN)) };
            for (sum, narrow) in sum.iter_mut().zip(narrow) {
                for (sum, narrow) in sum.iter_mut().zip(narrow) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
                }
            }
        }
        for v in 0..NV {
            // SAFETY: NR scales a group.
            let scale = unsafe { _mm256_loadu_ps(t.scales.add(g * NR + 8 * v)) };
            for (acc, sum) in acc.iter_mut().zip(&sum) {
                acc[v] = _mm256_add_ps(acc[v], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum[v])));
            }
        }
    }
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: one step a row.
        let step = _mm256_set1_ps(unsafe { *t.steps.add(r) });
        for (v, &acc) in acc.iter().enumerate() {
            let y = t.y.wrapping_add(r * t.ldy + 8 * v);
            let out = _mm256_mul_ps(step, acc);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(t.cols as i32 - 8 * v as i32), lanes);
            // SAFETY: stored lanes lie in y; the address of a tile's last vectors may lie behind its end.
            unsafe {
                if t.cols == NR {
                    _mm256_storeu_ps(y, out);
                } else {
                    _mm256_maskstore_ps(y, mask, out);
                }
            }
        }
    }
}

/// Sums over inputs k..end, at most [`WIDEN`] of them, two i16 an output.
///
/// # Safety
/// As for [`tile_rows`]; `end <= t.dim`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn narrow_sums<const R: usize>(t: &Tile, k: usize, end: usize) -> [[__m256i; NV]; R] {
    let mut sum = [[_mm256_setzero_si256(); NV]; R];
    // Two steps a turn: short loops are predicted to the end.
    for k in (k..end).step_by(8) {
        for k in [k, k + 4] {
            let mut w = [_mm256_setzero_si256(); NV];
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: inputs k..k + 4 of NR outputs.
                *w = unsafe { _mm256_loadu_si256(t.weights.add(k * NR + 32 * v).cast()) };
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                // SAFETY: k + 4 <= dim.
                let x = _mm256_set1_epi32(unsafe { t.x.add(r * t.dim + k).cast::<i32>().read_unaligned() });
                for (sum, &w) in sum.iter_mut().zip(&w) {
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(w, x));
                }
            }
        }
    }
    sum
}

/// `to[i]` = minus the sum of the i-th group of x; `group` is a multiple of 32.
///
/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn negated_sums(x: &[i8], group: usize, to: &mut [i32]) {
    let (bytes, words) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    for (x, to) in x.chunks_exact(group).zip(to) {
        let mut sum = _mm256_setzero_si256();
        for x in x.chunks_exact(32) {
            // SAFETY: 32 bytes.
            let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, x), words));
        }
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0x4e>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0xb1>(sum));
        *to = -_mm_cvtsi128_si32(sum);
    }
}

/// # Safety
/// AVX2; `codes` holds `cols >= 1` rows of `dim` weights, `to` is valid for `NR * dim` bytes.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn unpack(codes: &[u8], cols: usize, dim: usize, to: *mut u8) {
    let row_bytes = packed_row_bytes(dim);
    let three = _mm256_set1_epi8(3);
    for v in 0..cols.div_ceil(8) {
        for run in 0..row_bytes / 32 {
            let mut rows = [_mm256_setzero_si256(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                // Outputs behind the last one repeat it.
                let bytes = &codes[(8 * v + i).min(cols - 1) * row_bytes + 32 * run..][..32];
                // SAFETY: 32 bytes.
                *row = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            }
            let words = transpose(rows);
            for plane in 0..4.min((dim - 128 * run) / 32) {
                let shift = _mm_cvtsi32_si128(2 * plane as i32);
                for (i, &word) in words.iter().enumerate() {
                    let k = 128 * run + 32 * plane + 4 * i;
                    // SAFETY: k + 4 <= dim.
                    unsafe {
                        let bytes = _mm256_and_si256(_mm256_srl_epi32(word, shift), three);
                        _mm256_storeu_si256(to.add(k * NR + 32 * v).cast(), bytes);
                    }
                }
            }
        }
    }
}

/// The 8 x 8 transpose of 32-bit words.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    let mut a = v;
    for i in 0..4 {
        a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut b = a;
    for h in 0..2 {
        for c in 0..2 {
            b[4 * h + 2 * c] = _mm256_unpacklo_epi64(a[4 * h + c], a[4 * h + 2 + c]);
            b[4 * h + 2 * c + 1] = _mm256_unpackhi_epi64(a[4 * h + c], a[4 * h + 2 + c]);
        }
    }
    let mut out = b;
    for c in 0..4 {
        out[c] = _mm256_permute2x128_si256::<0x20>(b[c], b[4 + c]);
        out[4 + c] = _mm256_permute2x128_si256::<0x31>(b[c], b[4 + c]);
    }
    out
}
