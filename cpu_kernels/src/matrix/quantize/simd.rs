//! The definitions in vectors.

use super::{CODES, MIN_MAX, SUMS, scalar, scale};
use crate::simd::isa::{Isa, unroll};

/// Quantises one row of activations; returns its step.
#[inline(always)]
pub(super) fn row<S: Isa>(x: &[f32], xq: &mut [i8]) -> f32 {
    assert_eq!(x.len(), xq.len());
    let whole = x.len() / (2 * S::WIDTH) * (2 * S::WIDTH);
    let (mut max, mut zero) = ([S::splat(MIN_MAX); 2], [S::splat(0.0); 2]);
    for i in (0..whole).step_by(2 * S::WIDTH) {
        for (v, (max, zero)) in max.iter_mut().zip(&mut zero).enumerate() {
            // SAFETY: a register of values.
            let x = unsafe { S::load(x.as_ptr().add(i + v * S::WIDTH)) };
            // The second operand is the maximum with a NaN.
            *max = S::max(S::abs(x), *max);
            *zero = S::add(*zero, S::mul(x, S::splat(0.0)));
        }
    }
    let max = S::max_lane(S::max(max[0], max[1]));
    let max = x[whole..].iter().fold(max, |max, x| if x.abs() > max { x.abs() } else { max });
    // 0 * x is 0, or NaN where x is not finite.
    let finite = S::sum_halves(S::add(zero[0], zero[1])) == 0.0 && x[whole..].iter().all(|x| x.is_finite());
    let step = scalar::step(max, finite);
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
pub(super) fn ternary_row<S: Isa>(w: &[f32], group: usize, stage: u32, codes: &mut [u8], scales: &mut [f32]) {
    for (w, s) in w.chunks_exact(group).zip(scales.iter_mut()).filter(|_| stage != CODES) {
        let sum = match group / S::WIDTH {
            2 => sum_abs::<S, 1, 2>(w),
            4 => sum_abs::<S, 1, 4>(w),
            8 => sum_abs::<S, 1, 8>(w),
            16 => sum_abs::<S, 2, 8>(w),
            32 => sum_abs::<S, 4, 8>(w),
            64 => sum_abs::<S, 8, 8>(w),
            _ => scalar::sum_abs(w),
        };
        *s = scale(sum, group, stage);
    }
    if stage == SUMS {
        return;
    }
    for (run, bytes) in codes.chunks_exact_mut(32).enumerate() {
        let w = &w[128 * run..];
        let scale = |plane: usize| scales[(128 * run + 32 * plane) / group];
        match w.len() / 32 {
            1 => pack::<S, 1>(w, [scale(0)], bytes),
            2 => pack::<S, 2>(w, [scale(0), scale(1)], bytes),
            3 => pack::<S, 3>(w, [scale(0), scale(1), scale(2)], bytes),
            _ => pack::<S, 4>(w, [scale(0), scale(1), scale(2), scale(3)], bytes),
        }
    }
}

/// Packs P planes of 32 weights, each with its scale.
#[inline(always)]
fn pack<S: Isa, const P: usize>(w: &[f32], scales: [f32; P], bytes: &mut [u8]) {
    assert!(w.len() >= 32 * P && bytes.len() == 32);
    for i in (0..32).step_by(2 * S::WIDTH) {
        // The ones of four planes: a code is 1 + (w > half) - (w < -half).
        let mut packed = [S::splat_i(0b01_01_01_01); 2];
        unroll!(v < 2 of 2, p < P of 4 {
            // SAFETY: a register of weights of this plane.
            let w = unsafe { S::load(w.as_ptr().add(32 * p + i + v * S::WIDTH)) };
            packed[v] = S::add_sign(packed[v], w, 0.5 * scales[p], p)
        });
        // SAFETY: as many bytes.
        unsafe { S::store_bytes(packed, bytes.as_mut_ptr().add(i)) };
    }
}

/// Sum of |w| by adding halves. `w` holds M * N registers: register n of the halves that are left when N are is a sum of every
/// N-th one.
#[inline(always)]
fn sum_abs<S: Isa, const M: usize, const N: usize>(w: &[f32]) -> f32 {
    assert_eq!(w.len(), M * N * S::WIDTH);
    let mut left = [S::splat(0.0); N];
    unroll!(n < N of 8 {
        let mut t = [S::splat(0.0); M];
        // SAFETY: M * N registers.
        unroll!(m < M of 8 { t[m] = S::abs(unsafe { S::load(w.as_ptr().add((m * N + n) * S::WIDTH)) }) });
        left[n] = halved::<S, M>(t);
    });
    S::sum_halves(halved::<S, N>(left))
}

/// Adds halves of up to 8 registers.
#[inline(always)]
fn halved<S: Isa, const N: usize>(mut t: [S::F; N]) -> S::F {
    if N == 8 {
        unroll!(i < 4 of 4 { t[i] = S::add(t[i], t[i + N / 2]) });
    }
    if N >= 4 {
        unroll!(i < 2 of 2 { t[i] = S::add(t[i], t[i + 2]) });
    }
    if N >= 2 { S::add(t[0], t[1]) } else { t[0] }
}
