//! The definitions in vectors.

use super::{MIN_MAX, scalar, scale};
use crate::simd::isa::Isa;

/// Quantises one row of activations; returns its step.
#[inline(always)]
pub(super) fn row<S: Isa>(x: &[f32], xq: &mut [i8]) -> f32 {
    assert_eq!(x.len(), xq.len());
    let whole = x.len() / (2 * S::WIDTH) * (2 * S::WIDTH);
    let mut max = [S::splat(MIN_MAX); 2];
    for i in (0..whole).step_by(2 * S::WIDTH) {
        for (v, max) in max.iter_mut().enumerate() {
            // SAFETY: a register of values. A NaN does not count: the second operand is the maximum of one.
            *max = S::max(S::abs(unsafe { S::load(x.as_ptr().add(i + v * S::WIDTH)) }), *max);
        }
    }
    let max = S::max_lane(S::max(max[0], max[1]));
    let step = x[whole..].iter().fold(max, |max, x| if x.abs() > max { x.abs() } else { max }) / 127.0;
    let (low, high) = (S::splat(-127.0), S::splat(127.0));
    for i in (0..whole).step_by(2 * S::WIDTH) {
        let mut codes = [S::splat_i(0); 2];
        for (v, codes) in codes.iter_mut().enumerate() {
            // SAFETY: a register of values.
            let t = S::div(unsafe { S::load(x.as_ptr().add(i + v * S::WIDTH)) }, S::splat(step));
            *codes = S::round(S::min(S::max(t, low), high));
        }
        // SAFETY: as many bytes.
        unsafe { S::store_bytes(codes, xq.as_mut_ptr().add(i).cast()) };
    }
    for (x, xq) in x[whole..].iter().zip(&mut xq[whole..]) {
        *xq = scalar::code(x / step);
    }
    step
}

/// Quantises one row of weights, whole groups of a multiple of 32. `codes` holds 32 bytes for each 128 weights begun,
/// `scales` one value a group.
#[inline(always)]
pub(super) fn ternary_row<S: Isa>(w: &[f32], group: usize, codes: &mut [u8], scales: &mut [f32]) {
    for (w, s) in w.chunks_exact(group).zip(scales.iter_mut()) {
        let sum = match group / S::WIDTH {
            2 => sum_abs::<S, 2>(w),
            4 => sum_abs::<S, 4>(w),
            8 => sum_abs::<S, 8>(w),
            16 => sum_abs::<S, 16>(w),
            32 => sum_abs::<S, 32>(w),
            64 => sum_abs::<S, 64>(w),
            _ => scalar::sum_abs(w),
        };
        *s = scale(sum, group);
    }
    for (run, bytes) in codes.chunks_exact_mut(32).enumerate() {
        let planes = 4.min((w.len() - 128 * run) / 32);
        // Codes are 1 + (w > half) - (w < -half).
        let mut halves = [0.0; 4];
        for (plane, half) in halves.iter_mut().enumerate().take(planes) {
            *half = 0.5 * scales[(128 * run + 32 * plane) / group];
        }
        for (i, bytes) in bytes.chunks_exact_mut(2 * S::WIDTH).enumerate() {
            let mut packed = [S::splat_i(0x55); 2];
            for (v, packed) in packed.iter_mut().enumerate() {
                let mut signs = S::splat_i(0);
                for plane in (0..planes).rev() {
                    let at = 128 * run + 32 * plane + (2 * i + v) * S::WIDTH;
                    // SAFETY: a register of weights of this plane.
                    let w = unsafe { S::load(w.as_ptr().add(at)) };
                    let half = halves[plane];
                    signs = S::count_above(S::shl(signs, 2), w, S::splat(half));
                    signs = S::discount_below(signs, w, S::splat(-half));
                }
                // As a signed byte.
                *packed = S::sar(S::shl(S::add_i(*packed, signs), 24), 24);
            }
            // SAFETY: as many bytes.
            unsafe { S::store_bytes(packed, bytes.as_mut_ptr()) };
        }
    }
}

/// Sum of |w| by adding halves. `w` holds N registers, N a power of two.
#[inline(always)]
fn sum_abs<S: Isa, const N: usize>(w: &[f32]) -> f32 {
    assert_eq!(w.len(), N * S::WIDTH);
    let mut t = [S::splat(0.0); N];
    for (i, t) in t.iter_mut().enumerate() {
        // SAFETY: N registers.
        *t = S::abs(unsafe { S::load(w.as_ptr().add(i * S::WIDTH)) });
    }
    for level in (0..N.ilog2()).rev() {
        let half = 1 << level;
        for i in 0..half {
            t[i] = S::add(t[i], t[i + half]);
        }
    }
    S::sum_halves(t[0])
}
