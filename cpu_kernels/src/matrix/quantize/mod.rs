//! The two quantisers, equal bit for bit at every level.
//!
//! Activations (`rows`), per row: step = max(max|x|, 1e-8) / 127; xq = x / step, clamped to +-127 and rounded half to
//! even. A true division: a reciprocal rounds differently. A row with a value that is not finite has the step NaN and codes of
//! -127, so that no product hides it.
//!
//! Weights (`ternary`), per group: s = mean|w|, at least 2^-14, rounded to f16, half to even; code = +1 if w > s / 2,
//! -1 if w < -s / 2, else 0. The sum of |w| is taken by adding halves: padded with zeros to a power of two n, then
//! repeatedly `t[i] += t[i + n / 2]`. A group with a value that is not finite has the scale NaN and codes of 0, so that no
//! product hides it.
//!
//! Weights with one scale (`ternary_whole`): s = mean|w| of the matrix, at least 1e-5, in f32. The sums of groups are added by halves
//! in runs of 1,024, and then run by run.

mod scalar;
mod simd;

use crate::{Level, at_level, matrix::packed_row_bytes};

/// The smallest scale: the smallest normal f16.
const MIN_SCALE: f32 = 1.0 / 16384.0;
/// The smallest scale of a whole matrix.
const MIN_WHOLE: f32 = 1e-5;
/// Sums of groups that are added by halves.
const RUN: usize = 1024;
/// Stage of [`ternary_stage`]: scales and codes.
pub const BOTH: u32 = 0;
/// Stage of [`ternary_stage`]: the sums of |w| of groups in the place of scales, and no codes.
pub const SUMS: u32 = 1;
/// Stage of [`ternary_stage`]: codes by given scales.
pub const CODES: u32 = 2;
/// The smallest maximum of a row of activations.
const MIN_MAX: f32 = 1e-8;

/// Quantises activations x (rows, dim) to xq (rows, dim) and steps (rows): x is about xq * step.
pub fn rows(level: Level, x: &[f32], dim: usize, xq: &mut [i8], steps: &mut [f32]) {
    level.require();
    let len = steps.len() * dim;
    assert!(x.len() == len && xq.len() == len, "x: {}, xq: {} for ({}, {dim})", x.len(), xq.len(), steps.len());
    if dim == 0 {
        return steps.fill(MIN_MAX / 127.0);
    }
    for ((x, xq), step) in x.chunks_exact(dim).zip(xq.chunks_exact_mut(dim)).zip(steps) {
        *step = at_level!(level, [scalar::row, simd::row::<Simd128>, simd::row::<Avx2>, simd::row::<Avx512>, simd::row::<Neon>, simd::row::<Neon>],
            (x: &[f32], xq: &mut [i8]) -> f32);
    }
}

/// Quantises weights w (rows, dim) to codes (rows, ceil(dim / 128) * 32) in canonical packing and scales
/// (rows, dim / group). `group` is a multiple of 32 that divides `dim`; powers of two up to 256 are fast.
pub fn ternary(level: Level, w: &[f32], dim: usize, group: usize, codes: &mut [u8], scales: &mut [f32]) {
    ternary_stage(level, BOTH, w, (dim, group), codes, scales);
}

/// Quantises weights w (rows, dim) to codes as [`ternary`] does, with one scale for all, which it returns.
pub fn ternary_whole(level: Level, w: &[f32], dim: usize, group: usize, codes: &mut [u8]) -> f32 {
    let mut scales = vec![0.0; w.len() / group];
    ternary_stage(level, SUMS, w, (dim, group), codes, &mut scales);
    let scale = mean_scale(&scales, 1.0 / w.len() as f32);
    scales.fill(scale);
    ternary_stage(level, CODES, w, (dim, group), codes, &mut scales);
    scale
}

/// The scale of a matrix from the sums of |w| of its groups and 1 / the number of its weights. A mean that is not finite gives NaN.
pub fn mean_scale(sums: &[f32], inverse: f32) -> f32 {
    let mean = sums.chunks(RUN).fold(0.0, |total, run| total + scalar::sum_abs(run)) * inverse;
    if mean.is_finite() { mean.max(MIN_WHOLE) } else { f32::NAN }
}

/// A stage of the quantisation of weights: [`BOTH`], [`SUMS`] or [`CODES`].
pub fn ternary_stage(
    level: Level,
    stage: u32,
    w: &[f32],
    (dim, group): (usize, usize),
    codes: &mut [u8],
    scales: &mut [f32],
) {
    level.require();
    assert!(
        dim > 0 && group > 0 && group.is_multiple_of(32) && dim.is_multiple_of(group),
        "group {group} of {dim} inputs"
    );
    let (rows, row_bytes, groups) = (w.len() / dim, packed_row_bytes(dim), dim / group);
    assert_eq!(
        (w.len(), codes.len(), scales.len()),
        (rows * dim, rows * row_bytes, rows * groups),
        "(w, codes, scales) for ({rows}, {dim}) in groups of {group}"
    );
    for ((w, codes), scales) in
        w.chunks_exact(dim).zip(codes.chunks_exact_mut(row_bytes)).zip(scales.chunks_mut(groups))
    {
        at_level!(level,
            [scalar::ternary_row, simd::ternary_row::<Simd128>, simd::ternary_row::<Avx2>, simd::ternary_row::<Avx512>, simd::ternary_row::<Neon>, simd::ternary_row::<Neon>],
            (w: &[f32], group: usize, stage: u32, codes: &mut [u8], scales: &mut [f32]));
    }
}

/// The scale of a group from its sum of |w|: mean, lower bound, f16. A sum that is not finite gives NaN. Of a whole matrix it is the
/// sum.
fn scale(sum: f32, group: usize, stage: u32) -> f32 {
    if stage == SUMS {
        return sum;
    }
    let mean = sum * (1.0 / group as f32);
    if mean.is_finite() { round_to_f16(mean.max(MIN_SCALE)) } else { f32::NAN }
}

/// `x` >= 2^-14 rounded to f16, half to even, and widened again; infinite from 65,520 on.
fn round_to_f16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff);
    if rounded >= 65536.0 { f32::INFINITY } else { rounded }
}
