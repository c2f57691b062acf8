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

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::negated_sums;

use crate::{Level, matrix::gemm::packed_row_bytes, run::scratch::Scratch, run::split};
use std::ops::Range;

/// One product: y (rows, outs) from activations (rows, dim) and ternary weights (outs, dim).
#[derive(Clone, Copy, Debug)]
pub struct TernaryGemm<'a> {
    pub rows: usize,
    pub outs: usize,
    pub dim: usize,
    /// Consecutive inputs that share a scale: a multiple of 32 that divides `dim`.
    pub group: usize,
    /// (rows, dim), each in -127..=127.
    pub xq: &'a [i8],
    /// (rows).
    pub steps: &'a [f32],
    /// (outs, ceil(dim / 128) * 32): canonical packing.
    pub codes: &'a [u8],
    /// (outs, dim / group).
    pub scales: &'a [f32],
}

impl TernaryGemm<'_> {
    /// Computes all of y on this thread, in rows `ldy >= outs` apart.
    pub fn run(&self, level: Level, y: &mut [f32], ldy: usize) {
        if self.rows > 0 && self.outs > 0 {
            assert!(ldy >= self.outs && (self.rows - 1) * ldy + self.outs <= y.len(), "y: {} by {ldy}", y.len());
        }
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
        let area = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => {
                let kernel = Kernel::of(level);
                // Bringing in a row of weights or of activations costs about as much as using it 64 or 4 times.
                let area = split::tile((self.rows, self.outs), (kernel.mr, kernel.nr), (4, 64), part, parts);
                // SAFETY: the level and the inputs have been checked; y by contract, and the area is this part's.
                return unsafe { self.simd(kernel, y, ldy, area) };
            }
            _ => split::tile((self.rows, self.outs), (1, 1), (4, 64), part, parts),
        };
        // SAFETY: y by contract, and the area is this part's.
        unsafe { self.scalar(y, ldy, area) }
    }

    fn check(&self) {
        let Self { rows, outs, dim, group, .. } = *self;
        assert!(
            group > 0 && group.is_multiple_of(32) && dim.is_multiple_of(group) && dim <= i32::MAX as usize / 256,
            "group {group} of {dim} inputs"
        );
        assert!(self.xq.len() >= rows * dim, "xq: {} values for ({rows}, {dim})", self.xq.len());
        assert!(self.steps.len() >= rows, "steps: {} for {rows} rows", self.steps.len());
        assert!(self.codes.len() >= outs * packed_row_bytes(dim), "codes: {} for ({outs}, {dim})", self.codes.len());
        assert!(self.scales.len() >= outs * (dim / group), "scales: {} for ({outs}, {dim})", self.scales.len());
    }

    /// The definition, with each row of weights decoded once.
    ///
    /// # Safety
    /// The area lies in y and is this call's alone.
    unsafe fn scalar(&self, y: *mut f32, ldy: usize, (rows, outs): (Range<usize>, Range<usize>)) {
        let (dim, groups, row_bytes) = (self.dim, self.dim / self.group, packed_row_bytes(self.dim));
        let mut scratch = Scratch::of_thread();
        let [weights] = scratch.slices::<i8, _>([dim]);
        for o in outs {
            let bytes = &self.codes[o * row_bytes..(o + 1) * row_bytes];
            for (run, bytes) in weights.chunks_mut(128).zip(bytes.chunks_exact(32)) {
                for (plane, weights) in run.chunks_exact_mut(32).enumerate() {
                    weights.iter_mut().zip(bytes).for_each(|(w, b)| *w = (b >> (2 * plane) & 3) as i8 - 1);
                }
            }
            let scales = &self.scales[o * groups..(o + 1) * groups];
            for r in rows.clone() {
                let x = &self.xq[r * dim..(r + 1) * dim];
                let mut acc = 0.0f32;
                for ((w, x), scale) in weights.chunks(self.group).zip(x.chunks(self.group)).zip(scales) {
                    let sum: i32 = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                    acc += scale * sum as f32;
                }
                // SAFETY: (r, o) lies in the area.
                unsafe { *y.add(r * ldy + o) = self.steps[r] * acc };
            }
        }
    }

    /// # Safety
    /// The kernel's level is available, the inputs have been checked, and the area lies in y and is this call's alone.
    #[cfg(target_arch = "x86_64")]
    unsafe fn simd(&self, kernel: Kernel, y: *mut f32, ldy: usize, (rows, outs): (Range<usize>, Range<usize>)) {
        let Kernel { mr, nr, unpack, tile } = kernel;
        let (dim, groups, row_bytes) = (self.dim, self.dim / self.group, packed_row_bytes(self.dim));
        let mut scratch = Scratch::of_thread();
        // Four weights lie in the place of a float.
        let [weights, scales, sums] = scratch.slices::<f32, _>([nr * dim / 4, nr * groups, rows.len() * groups]);
        let sums = bytemuck::cast_slice_mut::<_, i32>(sums);
        let x = &self.xq[rows.start * dim..rows.end * dim];
        // SAFETY: every SIMD level includes AVX2; group is a multiple of 32.
        unsafe { negated_sums(x, self.group, sums) };
        for o in outs.clone().step_by(nr) {
            let cols = nr.min(outs.end - o);
            // SAFETY: `cols` rows of codes exist from o on; the area holds nr * dim bytes.
            unsafe { unpack(&self.codes[o * row_bytes..], cols, dim, weights.as_mut_ptr().cast()) };
            for (c, from) in self.scales[o * groups..].chunks_exact(groups.max(1)).take(cols).enumerate() {
                from.iter().enumerate().for_each(|(g, &s)| scales[g * nr + c] = s);
            }
            for r in rows.clone().step_by(mr) {
                let t = Tile {
                    rows: mr.min(rows.end - r),
                    cols,
                    dim,
                    group: self.group,
                    weights: weights.as_ptr().cast(),
                    scales: scales.as_ptr(),
                    x: self.xq[r * dim..].as_ptr(),
                    sums: sums[(r - rows.start) * groups..].as_ptr(),
                    steps: self.steps[r..].as_ptr(),
                    // SAFETY: (r, o) lies in y.
                    y: unsafe { y.add(r * ldy + o) },
                    ldy,
                };
                // SAFETY: the level is available and the tile's rows and columns exist.
                unsafe { tile(&t) };
            }
        }
    }
}

/// One register tile of y.
#[cfg(target_arch = "x86_64")]
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

/// What the driver needs to know of a level. Both functions require its CPU features and valid pointers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Kernel {
    mr: usize,
    nr: usize,
    /// Decodes `cols <= nr` rows of `dim` weights to (dim / 4, nr, 4) bytes; what lies behind `cols` is unspecified.
    unpack: unsafe fn(codes: &[u8], cols: usize, dim: usize, to: *mut u8),
    tile: unsafe fn(&Tile),
}

#[cfg(target_arch = "x86_64")]
impl Kernel {
    fn of(level: Level) -> Self {
        match level {
            Level::Avx512 => Self { mr: avx512::MR, nr: avx512::NR, unpack: avx512::unpack, tile: avx512::tile },
            _ => Self { mr: avx2::MR, nr: avx2::NR, unpack: avx2::unpack, tile: avx2::tile },
        }
    }
}
