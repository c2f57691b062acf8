//! Quantised linear layer:
//! `y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (int32 sum of code * xq)`.
//!
//! The group sums are exact integers. The float sum starts at 0.0 and takes a multiply and an add a group, never fused,
//! then one multiply by the step: every level gives the same bits for any number of rows, which is what lets training
//! and serving agree.
//!
//! SIMD levels decode a tile of weights once into bytes 0, 1, 2 (unsigned, as the multiply-add instructions want their
//! first operand), four consecutive inputs of each output in one 32-bit lane, and reuse it over all rows. The offset
//! of 1 is taken off by starting each group from minus the sum of its activations.

mod tile;

use crate::matrix::{fits, packed_row_bytes, scratch::Scratch, split};
use crate::simd::isa::Isa;
use crate::{Level, at_level};
use std::ops::Range;

/// One product: y (rows, outs) from activations (rows, dim) and ternary weights (outs, dim).
#[derive(Clone, Copy, Debug)]
pub struct TernaryGemm<'a> {
    /// Rows of activations.
    pub rows: usize,
    /// Outputs: rows of the weights.
    pub outs: usize,
    /// Inputs: columns of the weights.
    pub dim: usize,
    /// Consecutive inputs that share a scale: a multiple of 32 that divides `dim`.
    pub group: usize,
    /// Activations (rows, dim), each in -127..=127.
    pub xq: &'a [i8],
    /// Steps of the activations (rows).
    pub steps: &'a [f32],
    /// Weights (outs, ceil(dim / 128) * 32) in canonical packing.
    pub codes: &'a [u8],
    /// Scales of the weights (outs, dim / group).
    pub scales: &'a [f32],
}

impl TernaryGemm<'_> {
    /// Computes all of y on this thread, in rows `ldy >= outs` apart.
    pub fn run(&self, level: Level, y: &mut [f32], ldy: usize) {
        assert!(ldy >= self.outs && fits(y.len(), self.rows, self.outs, ldy), "y: {} by {ldy}", y.len());
        // SAFETY: `y` holds `rows` rows of `outs` values `ldy` apart, borrowed exclusively; there is one part.
        unsafe { self.run_part(level, y.as_mut_ptr(), ldy, 0, 1) }
    }

    /// Computes the share of `part` out of `parts`. y is complete when every part has been computed, on any threads in
    /// any order.
    ///
    /// # Safety
    /// - `y` is valid for reads and writes of `rows` rows of `outs` floats, rows `ldy >= outs` apart, and overlaps no
    ///   input.
    /// - Parts that run at the same time have equal arguments but for `part`, and different `part`s; nothing else
    ///   accesses y meanwhile.
    pub unsafe fn run_part(&self, level: Level, y: *mut f32, ldy: usize, part: usize, parts: usize) {
        level.require();
        self.check();
        let (mr, nr) = match level {
            Level::Scalar => (1, 1),
            Level::Simd128 => (4, 4),
            Level::Avx2 => (4, 16),
            Level::Neon => (4, 8),
            Level::Dotprod => (4, 16),
            Level::Avx512 => (8, 32),
        };
        // Bringing in a row of weights or of activations costs about as much as using it 64 or 4 times.
        let area = split::tile((self.rows, self.outs), (mr, nr), (4, 64), part, parts);
        let (of, y) = (self, (y, ldy));
        // y by contract, and the area is this part's.
        at_level!(level,
            [scalar, simd::<Simd128, 4, 1>, simd::<Avx2, 4, 2>, simd::<Avx512, 8, 2>, simd::<Neon, 4, 2>, simd::<Dotprod, 4, 4>],
            (of: &TernaryGemm<'_>, y: (*mut f32, usize), area: (Range<usize>, Range<usize>)));
    }

    fn check(&self) {
        let Self { rows, outs, dim, group, .. } = *self;
        assert!(
            group > 0 && group.is_multiple_of(32) && dim.is_multiple_of(group) && dim <= i32::MAX as usize / 256,
            "group {group} of {dim} inputs"
        );
        let (row_bytes, groups) = (packed_row_bytes(dim), dim / group);
        assert!(fits(self.xq.len(), rows, dim, dim), "xq: {} values for ({rows}, {dim})", self.xq.len());
        assert!(self.steps.len() >= rows, "steps: {} for {rows} rows", self.steps.len());
        assert!(fits(self.codes.len(), outs, row_bytes, row_bytes), "codes: {} for ({outs}, {dim})", self.codes.len());
        assert!(fits(self.scales.len(), outs, groups, groups), "scales: {} for ({outs}, {dim})", self.scales.len());
    }
}

/// The definition, with each row of weights decoded once. The inputs have been checked, and the area lies in y and is this
/// call's alone.
fn scalar(of: &TernaryGemm<'_>, (y, ldy): (*mut f32, usize), (rows, outs): (Range<usize>, Range<usize>)) {
    let (dim, groups, row_bytes) = (of.dim, of.dim / of.group, packed_row_bytes(of.dim));
    let mut scratch = Scratch::of_thread();
    let [weights] = scratch.slices::<i8, _>([dim]);
    for o in outs {
        let bytes = &of.codes[o * row_bytes..(o + 1) * row_bytes];
        for (run, bytes) in weights.chunks_mut(128).zip(bytes.chunks_exact(32)) {
            for (plane, weights) in run.chunks_exact_mut(32).enumerate() {
                weights.iter_mut().zip(bytes).for_each(|(w, b)| *w = (b >> (2 * plane) & 3) as i8 - 1);
            }
        }
        let scales = &of.scales[o * groups..(o + 1) * groups];
        for r in rows.clone() {
            let x = &of.xq[r * dim..(r + 1) * dim];
            let mut acc = 0.0f32;
            for ((w, x), scale) in weights.chunks(of.group).zip(x.chunks(of.group)).zip(scales) {
                let sum: i32 = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                acc += scale * sum as f32;
            }
            // SAFETY: (r, o) lies in the area.
            unsafe { *y.add(r * ldy + o) = of.steps[r] * acc };
        }
    }
}

/// As [`scalar`], in tiles of MR rows and NV registers of outputs.
#[inline(always)]
fn simd<S: Isa, const MR: usize, const NV: usize>(
    of: &TernaryGemm<'_>,
    (y, ldy): (*mut f32, usize),
    (rows, outs): (Range<usize>, Range<usize>),
) {
    let (nr, dim, groups, row_bytes) = (NV * S::WIDTH, of.dim, of.dim / of.group, packed_row_bytes(of.dim));
    let mut scratch = Scratch::of_thread();
    // Four weights lie in the place of a float.
    let [weights, scales, sums] = scratch.slices::<f32, _>([nr * dim / 4, nr * groups, rows.len() * groups]);
    let sums = bytemuck::cast_slice_mut::<_, i32>(sums);
    negated_sums(&of.xq[rows.start * dim..rows.end * dim], of.group, sums);
    for o in outs.clone().step_by(nr) {
        let cols = nr.min(outs.end - o);
        tile::unpack::<S, NV>(&of.codes[o * row_bytes..], cols, dim, weights.as_mut_ptr().cast());
        for (c, from) in of.scales[o * groups..].chunks_exact(groups.max(1)).take(cols).enumerate() {
            from.iter().enumerate().for_each(|(g, &s)| scales[g * nr + c] = s);
        }
        for r in rows.clone().step_by(MR) {
            tile::tile::<S, MR, NV>(&Tile {
                rows: MR.min(rows.end - r),
                cols,
                dim,
                group: of.group,
                weights: weights.as_ptr().cast(),
                scales: scales.as_ptr(),
                x: of.xq[r * dim..].as_ptr(),
                sums: sums[(r - rows.start) * groups..].as_ptr(),
                steps: of.steps[r..].as_ptr(),
                // SAFETY: (r, o) lies in y.
                y: unsafe { y.add(r * ldy + o) },
                ldy,
            });
        }
    }
}

/// `to[i]` = minus the sum of the i-th group of x. `group` is a multiple of 32.
#[inline(always)]
pub(super) fn negated_sums(x: &[i8], group: usize, to: &mut [i32]) {
    for (x, to) in x.chunks_exact(group).zip(to) {
        // 32 activations add up to at most 32 * 127.
        let sums = x.as_chunks::<32>().0.iter().map(|x| i32::from(x.iter().map(|x| i16::from(*x)).sum::<i16>()));
        *to = -sums.sum::<i32>();
    }
}

/// One register tile of y. The pointers are valid for it, and the tile is the caller's alone.
struct Tile {
    rows: usize,
    cols: usize,
    dim: usize,
    group: usize,
    /// (dim / 4, nr, 4): code + 1.
    weights: *const u8,
    /// (dim / group, nr).
    scales: *const f32,
    /// (rows, dim).
    x: *const i8,
    /// (rows, dim / group): minus the sum of the group's activations.
    sums: *const i32,
    steps: *const f32,
    y: *mut f32,
    ldy: usize,
}
