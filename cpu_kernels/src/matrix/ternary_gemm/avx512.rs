//! AVX-512 VNNI: a register tile of 8 rows x 32 outputs, one `vpdpbusd` for 16 outputs x 4 inputs.

use super::Tile;
use crate::matrix::gemm::packed_row_bytes;
use std::arch::x86_64::*;

pub(super) const MR: usize = 8;
const NV: usize = 2;
pub(super) const NR: usize = 16 * NV;

static TILES: [unsafe fn(&Tile); MR] = [
    tile_rows::<1>,
    tile_rows::<2>,
    tile_rows::<3>,
    tile_rows::<4>,
    tile_rows::<5>,
    tile_rows::<6>,
    tile_rows::<7>,
    tile_rows::<8>,
];

/// # Safety
/// AVX-512 F and VNNI; the pointers of `t` are valid for its shape; `1 <= t.rows <= MR`, `t.cols <= NR`.
pub(super) unsafe fn tile(t: &Tile) {
    // SAFETY: the caller's contract.
    unsafe { TILES[t.rows - 1](t) }
}

/// # Safety
/// As for [`tile`], with `t.rows == R`.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile_rows<const R: usize>(t: &Tile) {
    let groups = t.dim / t.group;
    let mut acc = [[_mm512_setzero_ps(); NV]; R];
    for g in 0..groups {
        let mut sum = [[_mm512_setzero_si512(); NV]; R];
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: the row has a sum for each group.
            *sum = [_mm512_set1_epi32(unsafe { *t.sums.add(r * groups + g) }); NV];
        }
        for k in (g * t.group..(g + 1) * t.group).step_by(4) {
            let mut w = [_mm512_setzero_si512(); NV];
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: inputs k..k + 4 of NR outputs.
                *w = unsafe { _mm512_loadu_si512(t.weights.add(k * NR + 64 * v).cast()) };
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                // SAFETY: k + 4 <= dim.
                let x = _mm512_set1_epi32(unsafe { t.x.add(r * t.dim + k).cast::<i32>().read_unaligned() });
                for (sum, &w) in sum.iter_mut().zip(&w) {
                    *sum = _mm512_dpbusd_epi32(*sum, w, x);
                }
            }
        }
        for v in 0..NV {
            // SAFETY: NR scales a group.
            let scale = unsafe { _mm512_loadu_ps(t.scales.add(g * NR + 16 * v)) };
            for (acc, sum) in acc.iter_mut().zip(&sum) {
                acc[v] = _mm512_add_ps(acc[v], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[v])));
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: one step a row.
        let step = _mm512_set1_ps(unsafe { *t.steps.add(r) });
        for (v, &acc) in acc.iter().enumerate() {
            let mask = (((1u64 << t.cols) - 1) >> (16 * v)) as u16;
            // SAFETY: masked lanes lie in y; the address of a tile's last vectors may lie behind its end.
            unsafe { _mm512_mask_storeu_ps(t.y.wrapping_add(r * t.ldy + 16 * v), mask, _mm512_mul_ps(step, acc)) };
        }
    }
}

/// # Safety
/// AVX-512F; `codes` holds `cols >= 1` rows of `dim` weights, `to` is valid for `NR * dim` bytes.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn unpack(codes: &[u8], cols: usize, dim: usize, to: *mut u8) {
    let row_bytes = packed_row_bytes(dim);
    let three = _mm512_set1_epi8(3);
    for v in 0..cols.div_ceil(16) {
        for run in 0..row_bytes / 32 {
            let mut half = [_mm512_setzero_si512(); 8];
            for (i, half) in half.iter_mut().enumerate() {
                // Outputs behind the last one repeat it.
                let row = |r: usize| codes[(16 * v + r).min(cols - 1) * row_bytes + 32 * run..][..32].as_ptr();
                // SAFETY: 32 bytes each, measured by the slices.
                let (lo, hi) = unsafe { (_mm256_loadu_si256(row(i).cast()), _mm256_loadu_si256(row(i + 8).cast())) };
                *half = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lo), hi);
            }
            let words = transpose(half);
            for plane in 0..4.min((dim - 128 * run) / 32) {
                let shift = _mm_cvtsi32_si128(2 * plane as i32);
                for (i, &word) in words.iter().enumerate() {
                    let k = 128 * run + 32 * plane + 4 * i;
                    // SAFETY: k + 4 <= dim.
                    unsafe {
                        let bytes = _mm512_and_si512(_mm512_srl_epi32(word, shift), three);
                        _mm512_storeu_si512(to.add(k * NR + 64 * v).cast(), bytes);
                    }
                }
            }
        }
    }
}

/// From rows i (low half) and i + 8 (high half) of eight 32-bit words to word i of sixteen rows.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(v: [__m512i; 8]) -> [__m512i; 8] {
    let mut a = v;
    for i in 0..4 {
        a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut b = a;
    for h in 0..2 {
        for c in 0..2 {
            b[4 * h + 2 * c] = _mm512_unpacklo_epi64(a[4 * h + c], a[4 * h + 2 + c]);
            b[4 * h + 2 * c + 1] = _mm512_unpackhi_epi64(a[4 * h + c], a[4 * h + 2 + c]);
        }
    }
    let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let mut out = b;
    for c in 0..4 {
        out[c] = _mm512_permutex2var_epi64(b[c], low, b[4 + c]);
        out[4 + c] = _mm512_permutex2var_epi64(b[c], high, b[4 + c]);
    }
    out
}
