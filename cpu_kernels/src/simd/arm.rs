//! NEON, and NEON with products of bytes (`sdot`).

use super::isa::{Isa, Lanes, Lookup, instructions};
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

/// Four floats a register.
pub(crate) struct Neon;
/// [`Neon`] with `sdot`.
pub(crate) struct Dotprod;

/// Sums of products of bytes without `sdot`: words, and two registers of i16 that were not added to them yet.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    words: int32x4_t,
    narrow: [int16x8_t; 2],
}

macro_rules! neon {
    ($name:ident { $($products:tt)* }) => {
        impl Lanes for $name {
            type F = float32x4_t;
            const WIDTH: usize = 4;

            instructions! {
                fn splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
                fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
                unsafe fn load(from: *const f32) -> float32x4_t { vld1q_f32(from) }
                unsafe fn load_half(from: *const u16) -> float32x4_t {
                    let wide: float32x4_t;
                    asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) vld1_u16(from),
                        options(pure, nomem, nostack, preserves_flags));
                    wide
                }
                unsafe fn store(x: float32x4_t, to: *mut f32) { vst1q_f32(to, x) }
            }
        }

        impl Isa for $name {
            type I = int32x4_t;
            const PLACES: usize = 2;
            const INT8_EXCESS: i32 = 0;

            instructions! {
                fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
                fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
                fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
                fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
                // Arm's own minimum and maximum of a NaN is NaN.
                fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
                fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
                fn sum_halves(a: float32x4_t) -> f32 {
                    let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
                    vget_lane_f32::<0>(a) + vget_lane_f32::<1>(a)
                }
                fn max_lane(a: float32x4_t) -> f32 { vmaxvq_f32(a) }
                fn round(a: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(a) }
                unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> float32x4_t {
                    let mut x = [0.0; 4];
                    for lane in lanes.start.max(0)..lanes.end.min(4) {
                        x[lane as usize] = *from.offset(lane);
                    }
                    vld1q_f32(x.as_ptr())
                }
                unsafe fn store_some(x: float32x4_t, to: *mut f32, lanes: Range<isize>) {
                    let mut from = [0.0; 4];
                    vst1q_f32(from.as_mut_ptr(), x);
                    for lane in lanes.start.max(0)..lanes.end.min(4) {
                        *to.offset(lane) = from[lane as usize];
                    }
                }

                fn splat_i(x: i32) -> int32x4_t { vdupq_n_s32(x) }
                fn add_i(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
                fn and(a: int32x4_t, b: int32x4_t) -> int32x4_t { vandq_s32(a, b) }
                fn shr(a: int32x4_t, n: i32) -> int32x4_t {
                    vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)))
                }
                fn as_float(a: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(a) }
                fn to_float(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) }
                fn ternary(code: int32x4_t, scale: float32x4_t) -> float32x4_t {
                    let code = vandq_s32(code, vdupq_n_s32(3));
                    vmulq_f32(vcvtq_f32_s32(vsubq_s32(code, vdupq_n_s32(1))), scale)
                }
                fn add_sign(sum: int32x4_t, x: float32x4_t, half: f32, place: usize) -> int32x4_t {
                    // A true comparison is -1.
                    let above = vreinterpretq_s32_u32(vcgtq_f32(x, vdupq_n_f32(half)));
                    let below = vreinterpretq_s32_u32(vcltq_f32(x, vdupq_n_f32(-half)));
                    vaddq_s32(sum, vshlq_s32(vsubq_s32(below, above), vdupq_n_s32(2 * place as i32)))
                }
                unsafe fn load_i(from: *const u8) -> int32x4_t { vreinterpretq_s32_u8(vld1q_u8(from)) }
                unsafe fn store_i(x: int32x4_t, to: *mut u8) { vst1q_u8(to, vreinterpretq_u8_s32(x)) }
                unsafe fn load_u8(from: *const u8) -> int32x4_t {
                    let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
                    vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
                unsafe fn load_i8(from: *const i8) -> int32x4_t {
                    let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
                    vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
                }
                unsafe fn store_bytes(x: [int32x4_t; 2], to: *mut u8) {
                    let words = vuzp1q_s16(vreinterpretq_s16_s32(x[0]), vreinterpretq_s16_s32(x[1]));
                    vst1_u8(to, vreinterpret_u8_s8(vmovn_s16(words)));
                }
            }

            #[inline(always)]
            unsafe fn columns(row: impl Fn(usize) -> *const u8) -> [int32x4_t; 8] {
                // SAFETY: valid by this method's contract; NEON is available.
                unsafe {
                    let mut out = [vdupq_n_s32(0); 8];
                    for half in 0..2 {
                        let mut v = [vdupq_n_s32(0); 4];
                        for (i, v) in v.iter_mut().enumerate() {
                            *v = Self::load_i(row(i).add(16 * half));
                        }
                        let pairs = [0, 2].map(|i| [vtrn1q_s32(v[i], v[i + 1]), vtrn2q_s32(v[i], v[i + 1])]);
                        for c in 0..2 {
                            let [low, high] = [0, 1].map(|p| vreinterpretq_s64_s32(pairs[p][c]));
                            out[4 * half + c] = vreinterpretq_s32_s64(vtrn1q_s64(low, high));
                            out[4 * half + 2 + c] = vreinterpretq_s32_s64(vtrn2q_s64(low, high));
                        }
                    }
                    out
                }
            }

            $($products)*
        }
    };
}

/// Signed bytes of codes that are given as code + 128.
#[inline(always)]
fn unbiased(biased: int32x4_t) -> int8x16_t {
    // SAFETY: NEON is available.
    #[allow(unused_unsafe, reason = "the instructions of the architecture's baseline are safe")]
    unsafe {
        vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(biased), vdupq_n_u8(128)))
    }
}

neon!(Neon {
    type Sum = Sums;
    const CARRY: usize = i16::MAX as usize / 127 / 64 * 64;

    instructions! {
        fn start(x: i32) -> Sums { Sums { words: vdupq_n_s32(x), narrow: [vdupq_n_s16(0); 2] } }
        fn multiply(sum: &mut Sums, weights: int32x4_t, x: int32x4_t) {
            let (w, x) = (vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
            sum.narrow[0] = vmlal_s8(sum.narrow[0], vget_low_s8(w), vget_low_s8(x));
            sum.narrow[1] = vmlal_high_s8(sum.narrow[1], w, x);
        }
        fn add_shifted(sum: &mut Sums, other: Sums, bits: i32) {
            let bits = vdupq_n_s16(-bits as i16);
            sum.narrow[0] = vaddq_s16(sum.narrow[0], vshlq_s16(other.narrow[0], bits));
            sum.narrow[1] = vaddq_s16(sum.narrow[1], vshlq_s16(other.narrow[1], bits));
        }
        fn carry(sum: &mut Sums) {
            let [low, high] = [vpaddlq_s16(sum.narrow[0]), vpaddlq_s16(sum.narrow[1])];
            *sum = Sums { words: vaddq_s32(sum.words, vpaddq_s32(low, high)), narrow: [vdupq_n_s16(0); 2] };
        }
        fn total(sum: Sums) -> int32x4_t { sum.words }
        // Two products fit into i16: 2 * 128 * 127 < 2^15.
        fn multiply_int8(sum: int32x4_t, biased: int32x4_t, x: int32x4_t) -> int32x4_t {
            let (w, x) = (unbiased(biased), vreinterpretq_s8_s32(x));
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(w, x)))
        }
    }
});

/// sum + products of signed bytes.
#[inline(always)]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: only used at a level that has the instruction, which reads and writes registers only.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

neon!(Dotprod {
    type Sum = int32x4_t;
    const CARRY: usize = 1 << 30;

    instructions! {
        fn start(x: i32) -> int32x4_t { vdupq_n_s32(x) }
        fn multiply(sum: &mut int32x4_t, weights: int32x4_t, x: int32x4_t) {
            *sum = sdot(*sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
        }
        fn add_shifted(sum: &mut int32x4_t, other: int32x4_t, bits: i32) {
            *sum = vaddq_s32(*sum, vshlq_s32(other, vdupq_n_s32(-bits)));
        }
        fn carry(_sum: &mut int32x4_t) {}
        fn total(sum: int32x4_t) -> int32x4_t { sum }
        fn multiply_int8(sum: int32x4_t, biased: int32x4_t, x: int32x4_t) -> int32x4_t {
            sdot(sum, unbiased(biased), vreinterpretq_s8_s32(x))
        }
    }
});

impl Lookup for Neon {
    instructions! {
        unsafe fn table(from: *const u8) -> int32x4_t { vreinterpretq_s32_u8(vld1q_u8(from)) }
        unsafe fn pair_table(a: i8, b: i8, to: *mut u8) {
            let first = vmulq_n_s16(vld1q_s16([-1, 0, 1, 2, -1, 0, 1, 2].as_ptr()), i16::from(a));
            for (half, seconds) in [[-1, -1, -1, -1, 0, 0, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2]].iter().enumerate() {
                let sum = vmlaq_n_s16(first, vld1q_s16(seconds.as_ptr()), i16::from(b));
                vst1_s8(to.add(8 * half).cast(), vmovn_s16(vandq_s16(sum, vdupq_n_s16(127))));
                vst1_s8(to.add(16 + 8 * half).cast(), vshrn_n_s16::<7>(sum));
            }
        }
        fn lookup(table: int32x4_t, indices: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table), vreinterpretq_u8_s32(indices)))
        }
        fn upper_nibbles(a: int32x4_t) -> int32x4_t { vreinterpretq_s32_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s32(a))) }
        fn add_u8(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_u8(vaddq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)))
        }
        fn add_u16(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_u16(vaddq_u16(vreinterpretq_u16_s32(a), vreinterpretq_u16_s32(b)))
        }
        fn sub_u16(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_u16(vsubq_u16(vreinterpretq_u16_s32(a), vreinterpretq_u16_s32(b)))
        }
        fn shl_16(a: int32x4_t, n: i32) -> int32x4_t {
            vreinterpretq_s32_s16(vshlq_s16(vreinterpretq_s16_s32(a), vdupq_n_s16(n as i16)))
        }
        fn shr_16(a: int32x4_t, n: i32) -> int32x4_t {
            vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(-n as i16)))
        }
        fn sar_16(a: int32x4_t, n: i32) -> int32x4_t {
            vreinterpretq_s32_s16(vshlq_s16(vreinterpretq_s16_s32(a), vdupq_n_s16(-n as i16)))
        }
        fn widen(a: int32x4_t) -> [int32x4_t; 2] {
            let a = vreinterpretq_s16_s32(a);
            [vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a)]
        }
    }
}
