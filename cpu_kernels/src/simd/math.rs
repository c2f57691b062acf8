//! Arithmetic that the kernels share. Everything here gives the same bits at every SIMD level: sums run over a fixed
//! number of lanes, whatever the register width, and a multiplication and an addition are never fused.

use std::array;

/// Lanes of a sum: element i goes to lane i % 16, each lane adds in order, then the lanes are added by halves.
/// Also the number of floats in a cache line, the unit in which elements are shared out.
pub const LANES: usize = 16;
/// Elements reduced to one partial result.
pub const BLOCK: usize = 4096;
/// Rows whose contributions to the gradient of a norm's weight are added up in its first stage.
pub const ROW_BLOCK: usize = 64;

/// Never inlined: a vectoriser that sees these pairs groups the lanes of the loop before by them, not by registers.
#[inline(never)]
fn by_halves(lanes: &[f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = *lanes;
    let mut n = LANES / 2;
    while n > 0 {
        for l in 0..n {
            lanes[l] = join(lanes[l], lanes[l + n]);
        }
        n /= 2;
    }
    lanes[0]
}

/// Folds `term(x[0][i], x[1][i], ...)` over i with `join`, in lanes.
#[inline(always)]
fn fold<const N: usize>(
    x: [&[f32]; N],
    start: f32,
    term: impl Fn([f32; N]) -> f32,
    join: impl Fn(f32, f32) -> f32 + Copy,
) -> f32 {
    let n = x[0].len();
    let x = x.map(|x| x[..n].as_chunks::<LANES>());
    let mut lanes = [start; LANES];
    for i in 0..n / LANES {
        let chunk: [&[f32; LANES]; N] = array::from_fn(|k| &x[k].0[i]);
        for l in 0..LANES {
            lanes[l] = join(lanes[l], term(array::from_fn(|k| chunk[k][l])));
        }
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(n % LANES) {
        *lane = join(*lane, term(array::from_fn(|k| x[k].1[l])));
    }
    by_halves(&array::from_fn(|l| lanes[l]), join)
}

/// Sum over i of `term(x[0][i], x[1][i], ...)`.
#[inline(always)]
pub fn sum_of<const N: usize>(x: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    fold(x, 0.0, term, |a, b| a + b)
}

/// Sum of the elements.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_of([x], |[x]| x)
}

/// Sum of the products of two slices.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of([a, b], |[a, b]| a * b)
}

/// The largest element; -inf for none; NaNs are passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    fold([x], f32::NEG_INFINITY, |[x]| x, |a, b| if b > a { b } else { a })
}

/// e^x, within 2e-7 of it (relative); 0 below -86.5, where GPUs may flush the result as well; inf from 88.73 on.
///
/// x = k ln 2 + r; e^r is a polynomial (Cephes, expf) and 2^k is put together from its bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let low = x < -86.5;
    let x = if low { -86.5 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    // 2^(k - 1), so that k = 128 is in reach; the bits of ROUND vanish in the shift.
    let half = f32::from_bits(shifted.to_bits().wrapping_add(126) << 23);
    let y = p * half * 2.0;
    if low { 0.0 } else { y }
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// beta * old, without reading old when beta is 0: it may not have been written yet.
#[inline(always)]
pub fn keep(beta: f32, old: f32) -> f32 {
    if beta == 0.0 { 0.0 } else { beta * old }
}

/// x rounded to f16, half to even, and widened again; clamped to +-65504. Below 2^-14 an f16 is a multiple of 2^-24.
#[inline(always)]
pub fn round_f16(x: f32) -> f32 {
    let (bits, limit) = (x.to_bits(), 65504.0);
    let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000);
    // Adding and taking away 1.5 * 2^-1 leaves a multiple of 2^-24: its last bit is worth that much.
    let small = (x + 0.75) - 0.75;
    let rounded = if x.abs() < 6.103_515_6e-5 { small } else { normal };
    if rounded.abs() > limit { limit.copysign(x) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        let mut worst = 0.0f64;
        for i in -86_500_000i32..=88_700_000 {
            if i % 7 == 0 {
                let x = i as f32 * 1e-6;
                let want = f64::from(x).exp();
                worst = worst.max((f64::from(exp(x)) - want).abs() / want);
            }
        }
        assert!(worst < 2e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(88.7).is_finite());
        assert!(exp(f32::NAN).is_nan());
        assert_eq!((sigmoid(-200.0), sigmoid(200.0), sigmoid(0.0)), (0.0, 1.0, 0.5));
    }

    #[test]
    fn sums_do_not_depend_on_what_follows() {
        let x: Vec<f32> = (0..100).map(|i| (i as f32 * 1.7).sin()).collect();
        for n in 0..100 {
            let mut padded = x[..n].to_vec();
            padded.resize(128, 0.0);
            assert_eq!(sum(&x[..n]).to_bits(), sum(&padded).to_bits());
            let want: f64 = x[..n].iter().map(|x| f64::from(*x)).sum();
            assert!((f64::from(sum(&x[..n])) - want).abs() < 1e-5);
        }
    }

    #[test]
    fn max_passes_over_nan() {
        let x: Vec<f32> = (0..100).map(|i| if i == 7 { f32::NAN } else { (i as f32 * 1.7).sin() }).collect();
        for n in 0..100 {
            assert_eq!(max(&x[..n]), x[..n].iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn rounds_like_f16() {
        for (x, want) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (1.0 + 2f32.powi(-11), 1.0),
            (1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-9)),
            (-0.1, -0.099_975_586),
            (65519.0, 65504.0),
            (1e9, 65504.0),
            (-70000.0, -65504.0),
            (2f32.powi(-25), 0.0),
            (3.0 * 2f32.powi(-25), 2f32.powi(-23)),
            (-1.1 * 2f32.powi(-24), -(2f32.powi(-24))),
            (2f32.powi(-14) * 0.9999, 2f32.powi(-14)),
        ] {
            assert_eq!(round_f16(x), want, "{x}");
        }
        assert!(round_f16(f32::NAN).is_nan());
    }
}
