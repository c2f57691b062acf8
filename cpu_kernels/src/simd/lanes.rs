//! Registers of floats, for products which autovectorisation does not keep in registers: inside attention, and the head's.

/// Asks for the cache line that a stream of reads will want in some thousand cycles; any address will do.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Bytes between what is read and what is prefetched.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 2048;

/// A register of [`WIDTH`](Lanes::WIDTH) floats. Its methods must be inlined into a function compiled for its level.
pub(crate) trait Lanes: Copy {
    const WIDTH: usize;

    fn splat(x: f32) -> Self;

    /// self * x + y, fused where the level can.
    fn mul_add(self, x: Self, y: Self) -> Self;

    /// # Safety
    /// `from` is valid for reads of `WIDTH` floats.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `from` is valid for reads of `WIDTH` f16 values.
    unsafe fn load_half(from: *const u16) -> Self;

    /// # Safety
    /// `to` is valid for writes of `WIDTH` floats.
    unsafe fn store(self, to: *mut f32);
}

/// Four floats in plain Rust: a register of SSE2, NEON or wasm's SIMD128.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Lanes for Plain {
    const WIDTH: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Plain([x; 4])
    }

    #[inline(always)]
    fn mul_add(self, x: Self, y: Self) -> Self {
        let (Plain([a0, a1, a2, a3]), Plain([x0, x1, x2, x3]), Plain([y0, y1, y2, y3])) = (self, x, y);
        Plain([a0 * x0 + y0, a1 * x1 + y1, a2 * x2 + y2, a3 * x3 + y3])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid by this method's contract.
        Plain(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_half(_: *const u16) -> Self {
        unreachable!("only levels that widen f16 are given any")
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid by this method's contract.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    macro_rules! lanes {
        ($name:ident($register:ident) $width:literal: $splat:ident, $mul_add:ident, $load:ident, $load_half:expr, $store:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl Lanes for $name {
                const WIDTH: usize = $width;

                #[inline(always)]
                fn splat(x: f32) -> Self {
                    // SAFETY: only used at a level that has the instruction.
                    $name(unsafe { $splat(x) })
                }

                #[inline(always)]
                fn mul_add(self, x: Self, y: Self) -> Self {
                    // SAFETY: only used at a level that has the instruction.
                    $name(unsafe { $mul_add(self.0, x.0, y.0) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: valid by this method's contract, and only used at a level that has the instruction.
                    $name(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn load_half(from: *const u16) -> Self {
                    // SAFETY: valid by this method's contract, and only used at a level that has the instructions.
                    $name(unsafe { $load_half(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: valid by this method's contract, and only used at a level that has the instruction.
                    unsafe { $store(to, self.0) }
                }
            }
        };
    }

    lanes!(Avx2(__m256) 8: _mm256_set1_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        |p: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_storeu_ps);
    lanes!(Avx512(__m512) 16: _mm512_set1_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        |p: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())), _mm512_storeu_ps);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};
