//! AVX2 with FMA and F16C, and AVX-512 with VNNI.

use super::isa::{Isa, Lanes, Lookup, instructions};
use std::arch::x86_64::*;
use std::ops::Range;

/// Eight floats a register.
pub(crate) struct Avx2;

impl Lanes for Avx2 {
    type F = __m256;
    const WIDTH: usize = 8;

    instructions! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        unsafe fn load(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        unsafe fn load_half(from: *const u16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        unsafe fn store(x: __m256, to: *mut f32) { _mm256_storeu_ps(to, x) }
    }
}

/// All bits of the lanes in `lanes`.
#[inline(always)]
fn mask8(lanes: Range<isize>) -> __m256i {
    // SAFETY: only used at a level that has the instructions.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_and_si256(
            _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(lanes.start as i32 - 1)),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes.end as i32), lane),
        )
    }
}

impl Isa for Avx2 {
    type I = __m256i;
    /// Words, and pairs of i16 that were not added to them yet: a product of two weights and activations is at most
    /// 2 * 127 times the largest weight.
    type Sum = (__m256i, __m256i);
    const CARRY: usize = i16::MAX as usize / (2 * 127) / 64 * 64;
    const PLACES: usize = 2;
    const INT8_EXCESS: i32 = 0;

    instructions! {
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn sum_halves(a: __m256) -> f32 {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
        fn max_lane(a: __m256) -> f32 {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
        fn round(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> __m256 { _mm256_maskload_ps(from, mask8(lanes)) }
        unsafe fn store_some(x: __m256, to: *mut f32, lanes: Range<isize>) { _mm256_maskstore_ps(to, mask8(lanes), x) }

        fn splat_i(x: i32) -> __m256i { _mm256_set1_epi32(x) }
        fn add_i(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn shr(a: __m256i, n: i32) -> __m256i { _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)) }
        fn as_float(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn to_float(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn ternary(code: __m256i, scale: __m256) -> __m256 {
            let values = _mm256_setr_ps(-1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0);
            _mm256_permutevar8x32_ps(_mm256_mul_ps(values, scale), code)
        }
        fn add_sign(sum: __m256i, x: __m256, half: f32, place: usize) -> __m256i {
            // A true comparison is -1.
            let above = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_set1_ps(half)));
            let below = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-half)));
            let sign = _mm256_sub_epi32(below, above);
            _mm256_add_epi32(sum, _mm256_sll_epi32(sign, _mm_cvtsi32_si128(2 * place as i32)))
        }
        unsafe fn load_i(from: *const u8) -> __m256i { _mm256_loadu_si256(from.cast()) }
        unsafe fn store_i(x: __m256i, to: *mut u8) { _mm256_storeu_si256(to.cast(), x) }
        unsafe fn load_u8(from: *const u8) -> __m256i { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
        unsafe fn load_i8(from: *const i8) -> __m256i { _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())) }
        unsafe fn store_bytes(x: [__m256i; 2], to: *mut u8) {
            // Each 128-bit lane holds its halves of the two registers.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1]));
            let words = _mm256_and_si256(words, _mm256_set1_epi16(255));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), bytes);
        }

        fn start(x: i32) -> (__m256i, __m256i) { (_mm256_set1_epi32(x), _mm256_setzero_si256()) }
        fn multiply(sum: &mut (__m256i, __m256i), weights: __m256i, x: __m256i) {
            sum.1 = _mm256_add_epi16(sum.1, _mm256_maddubs_epi16(weights, x));
        }
        fn add_shifted(sum: &mut (__m256i, __m256i), other: (__m256i, __m256i), bits: i32) {
            sum.1 = _mm256_add_epi16(sum.1, _mm256_sra_epi16(other.1, _mm_cvtsi32_si128(bits)));
        }
        fn carry(sum: &mut (__m256i, __m256i)) {
            sum.0 = _mm256_add_epi32(sum.0, _mm256_madd_epi16(sum.1, _mm256_set1_epi16(1)));
            sum.1 = _mm256_setzero_si256();
        }
        fn total(sum: (__m256i, __m256i)) -> __m256i { sum.0 }
        // |code| by the activation with the code's sign, which cannot saturate: 2 * 128 * 127 < 2^15.
        fn multiply_int8(sum: __m256i, biased: __m256i, x: __m256i) -> __m256i {
            let w = _mm256_xor_si256(biased, _mm256_set1_epi8(-128));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn columns(row: impl Fn(usize) -> *const u8) -> [__m256i; 8] {
        // SAFETY: valid by this method's contract, and only used at a level that has the instructions.
        unsafe {
            let mut a = [_mm256_setzero_si256(); 8];
            for (i, a) in a.iter_mut().enumerate() {
                *a = _mm256_loadu_si256(row(i).cast());
            }
            a = interleave(a);
            let mut out = a;
            for c in 0..4 {
                out[c] = _mm256_permute2x128_si256::<0x20>(a[c], a[4 + c]);
                out[4 + c] = _mm256_permute2x128_si256::<0x31>(a[c], a[4 + c]);
            }
            out
        }
    }
}

/// In each 128-bit lane: from rows 4 h..4 h + 4 of four words to word c of these rows in register 4 h + c.
#[inline(always)]
fn interleave(v: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: only used at a level that has the instructions.
    unsafe {
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
        b
    }
}

impl Lookup for Avx2 {
    instructions! {
        unsafe fn table(from: *const u8) -> __m256i { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) }
        unsafe fn pair_table(a: i8, b: i8, to: *mut u8) {
            let x = _mm256_set1_epi16(i16::from_le_bytes([a as u8, b as u8]));
            // Each word is a c0 and its c1.
            let codes = _mm256_setr_epi16(
                0x000, 0x001, 0x002, 0x003, 0x100, 0x101, 0x102, 0x103, 0x200, 0x201, 0x202, 0x203, 0x300, 0x301, 0x302, 0x303,
            );
            let sum = _mm256_sub_epi16(_mm256_maddubs_epi16(codes, x), _mm256_maddubs_epi16(_mm256_set1_epi8(1), x));
            let (low, high) = (_mm256_and_si256(sum, _mm256_set1_epi16(127)), _mm256_srai_epi16::<7>(sum));
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
            _mm256_storeu_si256(to.cast(), bytes);
        }
        fn lookup(table: __m256i, indices: __m256i) -> __m256i { _mm256_shuffle_epi8(table, indices) }
        fn upper_nibbles(a: __m256i) -> __m256i { _mm256_and_si256(_mm256_srli_epi16::<4>(a), _mm256_set1_epi8(15)) }
        fn add_u8(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi8(a, b) }
        fn add_u16(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi16(a, b) }
        fn sub_u16(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi16(a, b) }
        fn shl_16(a: __m256i, n: i32) -> __m256i { _mm256_sll_epi16(a, _mm_cvtsi32_si128(n)) }
        fn shr_16(a: __m256i, n: i32) -> __m256i { _mm256_srl_epi16(a, _mm_cvtsi32_si128(n)) }
        fn sar_16(a: __m256i, n: i32) -> __m256i { _mm256_sra_epi16(a, _mm_cvtsi32_si128(n)) }
        fn widen(a: __m256i) -> [__m256i; 2] {
            let high = _mm256_extracti128_si256::<1>(a);
            [_mm256_cvtepi16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepi16_epi32(high)]
        }
    }
}

/// Sixteen floats a register.
pub(crate) struct Avx512;

impl Lanes for Avx512 {
    type F = __m512;
    const WIDTH: usize = 16;

    instructions! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        unsafe fn load(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        unsafe fn load_half(from: *const u16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        unsafe fn store(x: __m512, to: *mut f32) { _mm512_storeu_ps(to, x) }
    }
}

/// A bit for each lane in `lanes`.
#[inline(always)]
fn mask16(lanes: Range<isize>) -> __mmask16 {
    let below = |lane: isize| (1u32 << lane.clamp(0, 16)) - 1;
    (below(lanes.end) & !below(lanes.start)) as u16
}

impl Isa for Avx512 {
    type I = __m512i;
    type Sum = __m512i;
    const CARRY: usize = 1 << 30;
    const PLACES: usize = 4;
    const INT8_EXCESS: i32 = 128;

    instructions! {
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn sum_halves(a: __m512) -> f32 {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)));
            Avx2::sum_halves(_mm256_add_ps(_mm512_castps512_ps256(a), high))
        }
        fn max_lane(a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
        fn round(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> __m512 { _mm512_maskz_loadu_ps(mask16(lanes), from) }
        unsafe fn store_some(x: __m512, to: *mut f32, lanes: Range<isize>) { _mm512_mask_storeu_ps(to, mask16(lanes), x) }

        fn splat_i(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn add_i(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn shr(a: __m512i, n: i32) -> __m512i { _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)) }
        fn as_float(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn to_float(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn ternary(code: __m512i, scale: __m512) -> __m512 {
            _mm512_permutexvar_ps(code, _mm512_mul_ps(_mm512_setr4_ps(-1.0, 0.0, 1.0, 0.0), scale))
        }
        fn add_sign(sum: __m512i, x: __m512, half: f32, place: usize) -> __m512i {
            let unit = _mm512_set1_epi32(1 << (2 * place));
            let sum = _mm512_mask_add_epi32(sum, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(half)), sum, unit);
            _mm512_mask_sub_epi32(sum, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_set1_ps(-half)), sum, unit)
        }
        unsafe fn load_i(from: *const u8) -> __m512i { _mm512_loadu_si512(from.cast()) }
        unsafe fn store_i(x: __m512i, to: *mut u8) { _mm512_storeu_si512(to.cast(), x) }
        unsafe fn load_u8(from: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
        unsafe fn load_i8(from: *const i8) -> __m512i { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
        unsafe fn store_bytes(x: [__m512i; 2], to: *mut u8) {
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(x[0]));
            _mm_storeu_si128(to.add(16).cast(), _mm512_cvtepi32_epi8(x[1]));
        }

        fn start(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn multiply(sum: &mut __m512i, weights: __m512i, x: __m512i) {
            *sum = _mm512_dpbusd_epi32(*sum, weights, x);
        }
        fn add_shifted(sum: &mut __m512i, other: __m512i, bits: i32) {
            *sum = _mm512_add_epi32(*sum, _mm512_sra_epi32(other, _mm_cvtsi32_si128(bits)));
        }
        fn carry(_sum: &mut __m512i) {}
        fn total(sum: __m512i) -> __m512i { sum }
        fn multiply_int8(sum: __m512i, biased: __m512i, x: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, biased, x) }
    }

    #[inline(always)]
    unsafe fn columns(row: impl Fn(usize) -> *const u8) -> [__m512i; 8] {
        // SAFETY: valid by this method's contract, and only used at a level that has the instructions.
        unsafe {
            let mut v = [_mm512_setzero_si512(); 8];
            for (i, v) in v.iter_mut().enumerate() {
                let [low, high] = [i, i + 8].map(|i| _mm256_loadu_si256(row(i).cast()));
                *v = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            }
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
    }
}
