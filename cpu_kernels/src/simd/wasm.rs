//! WebAssembly with 128-bit SIMD.

use super::isa::{Isa, Lanes, Lookup, instructions};
use std::arch::wasm32::*;
use std::ops::Range;

/// Four floats a register.
pub(crate) struct Simd128;

impl Lanes for Simd128 {
    type F = v128;
    const WIDTH: usize = 4;

    instructions! {
        fn splat(x: f32) -> v128 { f32x4_splat(x) }
        fn mul_add(a: v128, b: v128, c: v128) -> v128 { f32x4_add(f32x4_mul(a, b), c) }
        unsafe fn load(from: *const f32) -> v128 { v128_load(from.cast()) }
        // Exponents are biased by 15 as f16 and by 127 as f32. The product is exact, subnormals included.
        unsafe fn load_half(from: *const u16) -> v128 {
            let bits = u32x4_load_extend_u16x4(from);
            let size = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
            let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
            v128_or(f32x4_mul(size, f32x4_splat(f32::from_bits((127 + 112) << 23))), sign)
        }
        unsafe fn store(x: v128, to: *mut f32) { v128_store(to.cast(), x) }
    }
}

/// Words, and two registers of i16 that were not added to them yet.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    words: v128,
    narrow: [v128; 2],
}

impl Isa for Simd128 {
    type I = v128;
    type Sum = Sums;
    const CARRY: usize = i16::MAX as usize / 127 / 64 * 64;
    const PLACES: usize = 2;
    const INT8_EXCESS: i32 = 0;

    instructions! {
        fn mul(a: v128, b: v128) -> v128 { f32x4_mul(a, b) }
        fn add(a: v128, b: v128) -> v128 { f32x4_add(a, b) }
        fn div(a: v128, b: v128) -> v128 { f32x4_div(a, b) }
        fn abs(a: v128) -> v128 { f32x4_abs(a) }
        fn min(a: v128, b: v128) -> v128 { f32x4_pmin(b, a) }
        fn max(a: v128, b: v128) -> v128 { f32x4_pmax(b, a) }
        fn sum_halves(a: v128) -> f32 {
            let a = f32x4_add(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            f32x4_extract_lane::<0>(a) + f32x4_extract_lane::<1>(a)
        }
        fn max_lane(a: v128) -> f32 {
            let a = f32x4_pmax(a, i32x4_shuffle::<2, 3, 0, 1>(a, a));
            f32x4_extract_lane::<0>(a).max(f32x4_extract_lane::<1>(a))
        }
        fn round(a: v128) -> v128 { i32x4_trunc_sat_f32x4(f32x4_nearest(a)) }
        unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> v128 { load_some(from, lanes) }
        unsafe fn store_some(x: v128, to: *mut f32, lanes: Range<isize>) { store_some(x, to, lanes) }

        fn splat_i(x: i32) -> v128 { i32x4_splat(x) }
        fn add_i(a: v128, b: v128) -> v128 { i32x4_add(a, b) }
        fn and(a: v128, b: v128) -> v128 { v128_and(a, b) }
        fn shr(a: v128, n: i32) -> v128 { u32x4_shr(a, n as u32) }
        fn as_float(a: v128) -> v128 { a }
        fn to_float(a: v128) -> v128 { f32x4_convert_i32x4(a) }
        fn ternary(code: v128, scale: v128) -> v128 {
            let code = v128_and(code, i32x4_splat(3));
            f32x4_mul(f32x4_convert_i32x4(i32x4_sub(code, i32x4_splat(1))), scale)
        }
        fn add_sign(sum: v128, x: v128, half: f32, place: usize) -> v128 {
            // A true comparison is -1.
            let sign = i32x4_sub(f32x4_lt(x, f32x4_splat(-half)), f32x4_gt(x, f32x4_splat(half)));
            i32x4_add(sum, i32x4_shl(sign, 2 * place as u32))
        }
        unsafe fn load_i(from: *const u8) -> v128 { v128_load(from.cast()) }
        unsafe fn store_i(x: v128, to: *mut u8) { v128_store(to.cast(), x) }
        unsafe fn load_u8(from: *const u8) -> v128 {
            u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(v128_load32_zero(from.cast())))
        }
        unsafe fn load_i8(from: *const i8) -> v128 {
            i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(v128_load32_zero(from.cast())))
        }
        unsafe fn store_bytes(x: [v128; 2], to: *mut u8) {
            let bytes = i8x16_shuffle::<0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28>(x[0], x[1]);
            v128_store64_lane::<0>(bytes, to.cast());
        }

        fn start(x: i32) -> Sums { Sums { words: i32x4_splat(x), narrow: [i16x8_splat(0); 2] } }
        fn multiply(sum: &mut Sums, weights: v128, x: v128) {
            sum.narrow[0] = i16x8_add(sum.narrow[0], i16x8_extmul_low_i8x16(weights, x));
            sum.narrow[1] = i16x8_add(sum.narrow[1], i16x8_extmul_high_i8x16(weights, x));
        }
        fn add_shifted(sum: &mut Sums, other: Sums, bits: i32) {
            sum.narrow[0] = i16x8_add(sum.narrow[0], i16x8_shr(other.narrow[0], bits as u32));
            sum.narrow[1] = i16x8_add(sum.narrow[1], i16x8_shr(other.narrow[1], bits as u32));
        }
        fn carry(sum: &mut Sums) {
            sum.words = i32x4_add(sum.words, add_pairs(sum.narrow));
            sum.narrow = [i16x8_splat(0); 2];
        }
        fn total(sum: Sums) -> v128 { sum.words }
        fn multiply_int8(sum: v128, biased: v128, x: v128) -> v128 {
            let w = v128_xor(biased, u8x16_splat(128));
            i32x4_add(sum, add_pairs([i16x8_extmul_low_i8x16(w, x), i16x8_extmul_high_i8x16(w, x)]))
        }
    }

    #[inline(always)]
    unsafe fn columns(row: impl Fn(usize) -> *const u8) -> [v128; 8] {
        let mut out = [i32x4_splat(0); 8];
        for half in 0..2 {
            // SAFETY: valid by this method's contract.
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| unsafe { v128_load(row(i).add(16 * half).cast()) });
            let (low, high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
            let (low2, high2) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
            out[4 * half] = i64x2_shuffle::<0, 2>(low, low2);
            out[4 * half + 1] = i64x2_shuffle::<1, 3>(low, low2);
            out[4 * half + 2] = i64x2_shuffle::<0, 2>(high, high2);
            out[4 * half + 3] = i64x2_shuffle::<1, 3>(high, high2);
        }
        out
    }
}

/// Sums of four consecutive i16, which are the four of a word.
#[inline(always)]
fn add_pairs(narrow: [v128; 2]) -> v128 {
    let [low, high] = narrow.map(|x| i32x4_extadd_pairwise_i16x8(x));
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high))
}

impl Lookup for Simd128 {
    instructions! {
        unsafe fn table(from: *const u8) -> v128 { v128_load(from.cast()) }
        unsafe fn pair_table(a: i8, b: i8, to: *mut u8) {
            let (a, b) = (i16x8_splat(i16::from(a)), i16x8_splat(i16::from(b)));
            let first = i16x8_mul(a, i16x8(-1, 0, 1, 2, -1, 0, 1, 2));
            let seconds = [i16x8(-1, -1, -1, -1, 0, 0, 0, 0), i16x8(1, 1, 1, 1, 2, 2, 2, 2)];
            let [sum0, sum1] = seconds.map(|second| i16x8_add(first, i16x8_mul(b, second)));
            let low = i16x8_splat(127);
            v128_store(to.cast(), i8x16_narrow_i16x8(v128_and(sum0, low), v128_and(sum1, low)));
            v128_store(to.add(16).cast(), i8x16_narrow_i16x8(i16x8_shr(sum0, 7), i16x8_shr(sum1, 7)));
        }
        fn lookup(table: v128, indices: v128) -> v128 { i8x16_swizzle(table, indices) }
        fn upper_nibbles(a: v128) -> v128 { u8x16_shr(a, 4) }
        fn add_u8(a: v128, b: v128) -> v128 { i8x16_add(a, b) }
        fn add_u16(a: v128, b: v128) -> v128 { i16x8_add(a, b) }
        fn sub_u16(a: v128, b: v128) -> v128 { i16x8_sub(a, b) }
        fn shl_16(a: v128, n: i32) -> v128 { i16x8_shl(a, n as u32) }
        fn shr_16(a: v128, n: i32) -> v128 { u16x8_shr(a, n as u32) }
        fn sar_16(a: v128, n: i32) -> v128 { i16x8_shr(a, n as u32) }
        fn widen(a: v128) -> [v128; 2] { [i32x4_extend_low_i16x8(a), i32x4_extend_high_i16x8(a)] }
    }
}

/// See [`Isa::load_some`]. A call: every edge of every tile has one, and a browser downloads them all.
#[inline(never)]
unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> v128 {
    let mut x = [0.0; 4];
    for lane in lanes.start.max(0)..lanes.end.min(4) {
        // SAFETY: the caller's contract.
        x[lane as usize] = unsafe { *from.offset(lane) };
    }
    // SAFETY: a register.
    unsafe { v128_load(x.as_ptr().cast()) }
}

/// See [`Isa::store_some`].
#[inline(never)]
unsafe fn store_some(x: v128, to: *mut f32, lanes: Range<isize>) {
    let mut from = [0.0; 4];
    // SAFETY: a register; the lanes by the caller's contract.
    unsafe {
        v128_store(from.as_mut_ptr().cast(), x);
        for lane in lanes.start.max(0)..lanes.end.min(4) {
            *to.offset(lane) = from[lane as usize];
        }
    }
}
