//! The vector instructions that kernels are written with, whatever the instruction set.
//!
//! [`Lanes`] is arithmetic of floats, which every level has; [`Isa`] adds what the integer products need. A kernel is a
//! function over one of these traits that is inlined into a function compiled for its level: see
//! [`at_level`](crate::at_level).

use std::ops::Range;

/// Asks for the cache line that a stream of reads needs in some thousand cycles. Any address will do.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    prefetch_line(at.wrapping_add(AHEAD));
}

/// Bytes between what is read and what is prefetched.
const AHEAD: usize = 2048;

/// Asks for the cache line of any address.
#[inline(always)]
pub(crate) fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Registers of floats. Its functions must be inlined into a function compiled for its level.
pub(crate) trait Lanes: 'static {
    /// A register of `WIDTH` floats.
    type F: Copy;
    /// Floats of a register.
    const WIDTH: usize;

    fn splat(x: f32) -> Self::F;

    /// a * b + c, fused where the level can.
    fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// # Safety
    /// `from` is valid for reads of `WIDTH` floats.
    unsafe fn load(from: *const f32) -> Self::F;

    /// Widens f16 values.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` f16 values.
    unsafe fn load_half(from: *const u16) -> Self::F;

    /// # Safety
    /// `to` is valid for writes of `WIDTH` floats.
    unsafe fn store(x: Self::F, to: *mut f32);
}

/// The vector instructions of an instruction set.
///
/// A register of integers holds `WIDTH` words of 32 bits. Products of bytes multiply the four bytes of each word of one
/// register by those of the other and add them to one sum a word.
pub(crate) trait Isa: Lanes {
    /// A register of integers.
    type I: Copy;
    /// Sums of [`Isa::multiply`].
    type Sum: Copy;
    /// Weights that a sum can take between two calls of [`Isa::carry`]: each call of [`Isa::multiply`] counts as much as
    /// the largest weight in it.
    const CARRY: usize;
    /// Ternary codes that [`Isa::multiply`] takes from a byte without a shift: code p is multiplied by 4^p.
    const PLACES: usize;
    /// What [`Isa::multiply_int8`] adds to each weight.
    const INT8_EXCESS: i32;

    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    fn abs(a: Self::F) -> Self::F;
    /// The smaller; b where either is NaN.
    fn min(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; b where either is NaN.
    fn max(a: Self::F, b: Self::F) -> Self::F;
    /// Adds the upper half to the lower one until one float is left.
    fn sum_halves(a: Self::F) -> f32;
    /// The largest float. None is NaN.
    fn max_lane(a: Self::F) -> f32;
    /// To the nearest integer, half to even. Floats are within +-127.
    fn round(a: Self::F) -> Self::I;

    /// Those lanes of the register that are in `lanes`; the others are unspecified.
    ///
    /// # Safety
    /// The lanes are valid for reads.
    unsafe fn load_some(from: *const f32, lanes: Range<isize>) -> Self::F;

    /// Stores those lanes of the register that are in `lanes`.
    ///
    /// # Safety
    /// The lanes are valid for writes.
    unsafe fn store_some(x: Self::F, to: *mut f32, lanes: Range<isize>);

    fn splat_i(x: i32) -> Self::I;
    fn add_i(a: Self::I, b: Self::I) -> Self::I;
    fn and(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts words right, unsigned.
    fn shr(a: Self::I, n: i32) -> Self::I;
    /// The same bits as floats.
    fn as_float(a: Self::I) -> Self::F;
    fn to_float(a: Self::I) -> Self::F;
    /// (code - 1) * scale, where the code is the two lowest bits.
    fn ternary(code: Self::I, scale: Self::F) -> Self::F;
    /// sum + 4^place where x is above half, sum - 4^place where it is below -half.
    fn add_sign(sum: Self::I, x: Self::F, half: f32, place: usize) -> Self::I;

    /// # Safety
    /// `from` is valid for reads of a register.
    unsafe fn load_i(from: *const u8) -> Self::I;

    /// # Safety
    /// `to` is valid for writes of a register.
    unsafe fn store_i(x: Self::I, to: *mut u8);

    /// Widens bytes.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` bytes.
    unsafe fn load_u8(from: *const u8) -> Self::I;

    /// Widens signed bytes.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` bytes.
    unsafe fn load_i8(from: *const i8) -> Self::I;

    /// Stores the low bytes of two registers of words, which are within an i16.
    ///
    /// # Safety
    /// `to` is valid for writes of `2 * WIDTH` bytes.
    unsafe fn store_bytes(x: [Self::I; 2], to: *mut u8);

    /// Eight consecutive words of each of `WIDTH` rows, as eight registers of one word of each row.
    ///
    /// # Safety
    /// `row(i)` is valid for reads of 32 bytes for each i below `WIDTH`.
    unsafe fn columns(row: impl Fn(usize) -> *const u8) -> [Self::I; 8];

    /// Sums that start at `x`.
    fn start(x: i32) -> Self::Sum;
    /// Adds the products of weights within 0..=2 * 4^(PLACES - 1) and activations within +-127.
    fn multiply(sum: &mut Self::Sum, weights: Self::I, x: Self::I);
    /// sum + other / 2^bits, where `other` holds multiples of that which were not carried since it started from 0.
    fn add_shifted(sum: &mut Self::Sum, other: Self::Sum, bits: i32);
    /// Makes room in a sum: due before the weights added exceed [`Isa::CARRY`].
    fn carry(sum: &mut Self::Sum);
    /// The sum. It must have been carried since the last product.
    fn total(sum: Self::Sum) -> Self::I;
    /// sum + products of int8 codes, which are given as code + 128, and activations within +-127. Where
    /// [`Isa::INT8_EXCESS`] is not 0, that many times the activations is added too.
    fn multiply_int8(sum: Self::I, biased: Self::I, x: Self::I) -> Self::I;
}

/// Instructions for tables of 16 bytes.
pub(crate) trait Lookup: Isa {
    /// 16 bytes, repeated to fill a register.
    ///
    /// # Safety
    /// `from` is valid for reads of 16 bytes.
    unsafe fn table(from: *const u8) -> Self::I;
    /// The table of sums (c0 - 1) a + (c1 - 1) b at c0 + 4 c1, for c0 and c1 below 4: the low seven bits of each, then their
    /// other bits, signed.
    ///
    /// # Safety
    /// `to` is valid for writes of 32 bytes.
    unsafe fn pair_table(a: i8, b: i8, to: *mut u8);
    /// The bytes of a table at indices within 0..16.
    fn lookup(table: Self::I, indices: Self::I) -> Self::I;
    /// The upper four bits of each byte.
    fn upper_nibbles(a: Self::I) -> Self::I;
    fn add_u8(a: Self::I, b: Self::I) -> Self::I;
    fn add_u16(a: Self::I, b: Self::I) -> Self::I;
    fn sub_u16(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts words of 16 bits left.
    fn shl_16(a: Self::I, n: i32) -> Self::I;
    /// Shifts words of 16 bits right, unsigned.
    fn shr_16(a: Self::I, n: i32) -> Self::I;
    /// Shifts words of 16 bits right, signed.
    fn sar_16(a: Self::I, n: i32) -> Self::I;
    /// Signed words of 16 bits, widened: the first half of them, then the second.
    fn widen(a: Self::I) -> [Self::I; 2];
}

/// Four floats in plain Rust: a register of SSE2 or SIMD128.
pub(crate) struct Plain;

impl Lanes for Plain {
    type F = [f32; 4];
    const WIDTH: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn mul_add([a0, a1, a2, a3]: [f32; 4], [b0, b1, b2, b3]: [f32; 4], [c0, c1, c2, c3]: [f32; 4]) -> [f32; 4] {
        [a0 * b0 + c0, a1 * b1 + c1, a2 * b2 + c2, a3 * b3 + c3]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: valid by this method's contract.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn load_half(_: *const u16) -> [f32; 4] {
        unreachable!("only levels that widen f16 are given any")
    }

    #[inline(always)]
    unsafe fn store(x: [f32; 4], to: *mut f32) {
        // SAFETY: valid by this method's contract.
        unsafe { to.cast::<[f32; 4]>().write(x) }
    }
}

/// Methods of a vector trait, each the instructions that it stands for.
macro_rules! instructions {
    () => {};
    (fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? { $($body:tt)* } $($rest:tt)*) => {
        #[inline(always)]
        #[allow(unused_unsafe, reason = "the instructions of the architecture's baseline are safe")]
        fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: only used at a level that has the instructions.
            unsafe { $($body)* }
        }
        $crate::simd::isa::instructions! { $($rest)* }
    };
    (unsafe fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? { $($body:tt)* } $($rest:tt)*) => {
        #[inline(always)]
        #[allow(unused_unsafe, reason = "the instructions of the architecture's baseline are safe")]
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: valid by this method's contract, and only used at a level that has the instructions.
            unsafe { $($body)* }
        }
        $crate::simd::isa::instructions! { $($rest)* }
    };
}
pub(crate) use instructions;

/// `unroll!(i < N of 4 { .. })` repeats a block for each index below a constant of at most 4 (or 2, 8, 12, 16). Registers must
/// not be indexed at run time, and whether a compiler unrolls a loop depends on what surrounds it.
macro_rules! unroll {
    ($i:ident < $n:tt of 2 $body:block) => { $crate::simd::isa::unroll!(@ $i $n $body 0 1) };
    ($i:ident < $n:tt of 4 $body:block) => { $crate::simd::isa::unroll!(@ $i $n $body 0 1 2 3) };
    ($i:ident < $n:tt of 8 $body:block) => { $crate::simd::isa::unroll!(@ $i $n $body 0 1 2 3 4 5 6 7) };
    ($i:ident < $n:tt of 12 $body:block) => { $crate::simd::isa::unroll!(@ $i $n $body 0 1 2 3 4 5 6 7 8 9 10 11) };
    ($i:ident < $n:tt of 16 $body:block) => {
        $crate::simd::isa::unroll!(@ $i $n $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($i:ident < $n:tt of $most:tt, $($rest:tt)*) => {
        $crate::simd::isa::unroll!($i < $n of $most { $crate::simd::isa::unroll!($($rest)*) })
    };
    (@ $i:ident $n:tt $body:block $($k:literal)*) => {{
        $(if $k < $n {
            let $i: usize = $k;
            $body
        })*
    }};
}
pub(crate) use unroll;
