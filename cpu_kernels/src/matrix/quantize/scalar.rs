//! The definitions.

use super::{CODES, MIN_MAX, SUMS, scale};
use crate::matrix::scratch::Scratch;

/// Quantises one row of activations; returns its step.
pub(super) fn row(x: &[f32], xq: &mut [i8]) -> f32 {
    let max = x.iter().fold(MIN_MAX, |max, x| if x.abs() > max { x.abs() } else { max });
    let step = step(max, x.iter().all(|x| x.is_finite()));
    for (x, xq) in x.iter().zip(xq) {
        *xq = code(x / step);
    }
    step
}

/// The step of a row with this maximum, whose values are all finite or not.
#[inline]
pub(super) fn step(max: f32, finite: bool) -> f32 {
    if finite { max / 127.0 } else { f32::NAN }
}

/// Clamps and rounds half to even.
#[inline]
pub(super) fn code(t: f32) -> i8 {
    // Adding 1.5 * 2^23 leaves no fraction bits, so the addition itself rounds.
    const ROUND: f32 = 12_582_912.0;
    let t = if t > -127.0 { t } else { -127.0 };
    let t = if t < 127.0 { t } else { 127.0 };
    ((t + ROUND) - ROUND) as i8
}

/// Quantises one row of weights.
pub(super) fn ternary_row(w: &[f32], group: usize, stage: u32, codes: &mut [u8], scales: &mut [f32]) {
    for (w, s) in w.chunks_exact(group).zip(scales.iter_mut()).filter(|_| stage != CODES) {
        *s = scale(sum_abs(w), group, stage);
    }
    if stage == SUMS {
        return;
    }
    for (run, bytes) in codes.chunks_exact_mut(32).enumerate() {
        bytes.fill(0);
        for plane in 0..4 {
            let first = 128 * run + 32 * plane;
            for (m, byte) in bytes.iter_mut().enumerate() {
                let code = if first < w.len() {
                    let (w, half) = (w[first + m], 0.5 * scales[first / group]);
                    1 + u8::from(w > half) - u8::from(w < -half)
                } else {
                    1
                };
                *byte |= code << (2 * plane);
            }
        }
    }
}

/// Sum of |w| by adding halves.
pub(super) fn sum_abs(w: &[f32]) -> f32 {
    let mut n = w.len().next_power_of_two();
    let mut scratch = Scratch::of_thread();
    let [t] = scratch.slices::<f32, _>([n]);
    t.fill(0.0);
    w.iter().zip(t.iter_mut()).for_each(|(w, t)| *t = w.abs());
    while n > 1 {
        n /= 2;
        let (low, high) = t[..2 * n].split_at_mut(n);
        low.iter_mut().zip(high).for_each(|(l, h)| *l += *h);
    }
    t[0]
}
