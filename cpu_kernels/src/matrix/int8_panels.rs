//! Constant int8 weights with a scale for every 32 inputs, in the order in which a product of few rows reads them.
//!
//! A panel is 64 outputs. Per group: (8, 64, 4) bytes, four consecutive inputs of an output in one 32-bit lane, code + 128
//! (the multiply-add instructions want their first operand unsigned); then 64 scales, as f32 bits or, where all of them are f16
//! values, as f16. Reading it is one sequential stream.

use crate::matrix::scratch::{Line, Scratch};
use crate::simd::isa::{Isa, prefetch, unroll};
use crate::simd::math::round_f16;
use crate::{Level, at_level};
use bytemuck::Zeroable;
use std::ops::Range;

/// Consecutive inputs that share a scale.
pub const GROUP: usize = 32;
/// Outputs of a panel.
const PANEL: usize = 64;
/// Bytes of the codes of one group of a panel.
const CODES: usize = PANEL * GROUP;
/// Rows that share a pass over the weights.
const ROWS: usize = 4;

/// A matrix (outs, dim) in panels.
#[derive(Clone, Debug)]
pub struct Int8Panels {
    outs: usize,
    dim: usize,
    /// (ceil(outs / PANEL), dim / GROUP, codes and scales).
    bytes: Vec<Line>,
    half: bool,
}

impl Int8Panels {
    /// Whether a level reads panels.
    pub fn has(level: Level) -> bool {
        level != Level::Scalar
    }

    /// Lays out codes (outs, dim) and scales (outs, dim / GROUP).
    pub fn new(codes: &[i8], scales: &[f32], outs: usize, dim: usize) -> Self {
        let groups = dim / GROUP;
        let (codes, scales) = (&codes[..outs * dim], &scales[..outs * groups]);
        let half = scales.iter().all(|s| round_f16(*s) == *s);
        let mut panels = Int8Panels { outs, dim, bytes: Vec::new(), half };
        panels.bytes = vec![Line::zeroed(); outs.div_ceil(PANEL) * groups * panels.block() / size_of::<Line>()];
        let block = panels.block();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut panels.bytes);
        for (i, (codes, scale)) in codes.chunks_exact(GROUP).zip(scales).enumerate() {
            let (o, g) = (i / groups, i % groups);
            let (to, lane) = (&mut bytes[(o / PANEL * groups + g) * block..][..block], o % PANEL);
            for (k, four) in codes.chunks_exact(4).enumerate() {
                let at = (k * PANEL + lane) * 4;
                to[at..at + 4].iter_mut().zip(four).for_each(|(to, code)| *to = code.cast_unsigned() ^ 0x80);
            }
            if half {
                let bits = half::f16::from_f32(*scale).to_bits();
                to[CODES + 2 * lane..][..2].copy_from_slice(&bits.to_ne_bytes());
            } else {
                to[CODES + 4 * lane..][..4].copy_from_slice(&scale.to_ne_bytes());
            }
        }
        panels
    }

    /// (outs, dim)
    pub fn shape(&self) -> (usize, usize) {
        (self.outs, self.dim)
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.bytes[..])
    }

    /// Bytes of one group of a panel.
    fn block(&self) -> usize {
        CODES + PANEL * if self.half { 2 } else { 4 }
    }

    /// Computes this part's outputs of y (rows, outs) from x: (rows, dim) codes and a step for each row.
    ///
    /// # Safety
    /// `y` is valid for writes of (rows, outs) floats and overlaps no input; parts that run at the same time have equal
    /// arguments but for `part`, and nothing else accesses y meanwhile.
    ///
    /// # Panics
    /// At a level that has no integer products.
    pub unsafe fn run_part(&self, level: Level, x: (&[i8], &[f32]), y: *mut f32, part: usize, parts: usize) {
        level.require();
        let (xq, steps) = x;
        assert!(xq.len() == steps.len() * self.dim && part < parts, "xq: {} values of {}", xq.len(), self.dim);
        let panels = self.outs.div_ceil(PANEL);
        let mine = panels * part / parts..panels * (part + 1) / parts;
        let groups = self.dim / GROUP;
        let mut scratch = Scratch::of_thread();
        let [sums] = scratch.slices::<i32, _>([steps.len() * groups]);
        for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(GROUP)) {
            *sum = x.iter().map(|x| i32::from(*x)).sum();
        }
        for panel in mine {
            for first in (0..steps.len()).step_by(ROWS) {
                let rows = first..steps.len().min(first + ROWS);
                let few = &Few {
                    weights: bytemuck::cast_slice(&self.bytes)[panel * groups * self.block()..].as_ptr(),
                    block: self.block(),
                    half: self.half,
                    groups,
                    rows: rows.len(),
                    x: xq[first * self.dim..].as_ptr(),
                    sums: sums[first * groups..].as_ptr(),
                };
                let out = at_level!(level,
                    [none, products::<Simd128, 1, 4>, products::<Avx2, 1, 4>, products::<Avx512, 4, 4>, products::<Neon, 4, 4>, products::<Dotprod, 4, 4>],
                    (few: &Few) -> [[f32; PANEL]; ROWS]);
                self.store(&out, &steps[rows], panel, first, y);
            }
        }
    }

    fn store(&self, out: &[[f32; PANEL]; ROWS], steps: &[f32], panel: usize, first: usize, y: *mut f32) {
        let outs: Range<usize> = panel * PANEL..self.outs.min((panel + 1) * PANEL);
        for (r, (step, out)) in steps.iter().zip(out).enumerate() {
            for (o, out) in outs.clone().zip(out) {
                // SAFETY: (first + r, o) lies in y and is this part's, by the contract of `run_part`.
                unsafe { *y.add((first + r) * self.outs + o) = step * out };
            }
        }
    }
}

/// One panel and up to [`ROWS`] rows. The pointers are valid for these sizes.
struct Few {
    weights: *const u8,
    block: usize,
    half: bool,
    groups: usize,
    rows: usize,
    /// (rows, groups * GROUP).
    x: *const i8,
    /// (rows, groups): of the group's activations.
    sums: *const i32,
}

fn none(_: &Few) -> [[f32; PANEL]; ROWS] {
    unreachable!("this level has no integer products")
}

/// The products but for the steps, in tiles of up to MR rows and NV registers of outputs.
#[inline(always)]
fn products<S: Isa, const MR: usize, const NV: usize>(few: &Few) -> [[f32; PANEL]; ROWS] {
    let mut out = [[0.0; PANEL]; ROWS];
    for r in (0..few.rows).step_by(MR) {
        for first in (0..PANEL).step_by(NV * S::WIDTH) {
            let out = &mut out[r..];
            match MR.min(few.rows - r) {
                1 => tile::<S, 1, NV>(few, r, first, out),
                2 if MR > 1 => tile::<S, 2, NV>(few, r, first, out),
                3 if MR > 1 => tile::<S, 3, NV>(few, r, first, out),
                _ => tile::<S, MR, NV>(few, r, first, out),
            }
        }
    }
    out
}

/// Rows from `row` on, outputs from `first` on.
#[inline(always)]
fn tile<S: Isa, const R: usize, const NV: usize>(few: &Few, row: usize, first: usize, out: &mut [[f32; PANEL]]) {
    let mut acc = [[S::splat(0.0); NV]; R];
    for g in 0..few.groups {
        // SAFETY: block g of the panel.
        let block = unsafe { few.weights.add(g * few.block) };
        let mut sum = [[S::splat_i(0); NV]; R];
        if S::INT8_EXCESS != 0 {
            unroll!(r < R of 4 {
                // SAFETY: a sum for each group of each row.
                let sum_x = unsafe { *few.sums.add((row + r) * few.groups + g) };
                sum[r] = [S::splat_i(-S::INT8_EXCESS * sum_x); NV];
            });
        }
        for k in 0..GROUP / 4 {
            let codes = block.wrapping_add((k * PANEL + first) * 4);
            // Memory is a stream only where it is read in one pass.
            if NV * S::WIDTH == PANEL {
                (0..4 * PANEL).step_by(64).for_each(|line| prefetch(codes.wrapping_add(line)));
            }
            let mut w = [S::splat_i(0); NV];
            // SAFETY: four inputs of a register of outputs.
            unroll!(v < NV of 4 { w[v] = unsafe { S::load_i(codes.add(4 * v * S::WIDTH)) } });
            unroll!(r < R of 4 {
                let at = ((row + r) * few.groups + g) * GROUP + 4 * k;
                // SAFETY: four inputs of a row.
                let x = S::splat_i(unsafe { few.x.add(at).cast::<i32>().read_unaligned() });
                unroll!(v < NV of 4 { sum[r][v] = S::multiply_int8(sum[r][v], w[v], x) })
            });
        }
        unroll!(v < NV of 4 {
            let at = first + v * S::WIDTH;
            // SAFETY: 64 scales follow the codes.
            let scale = unsafe {
                let scales = block.add(CODES);
                if few.half { S::load_half(scales.add(2 * at).cast()) } else { S::load(scales.add(4 * at).cast()) }
            };
            unroll!(r < R of 4 { acc[r][v] = S::add(acc[r][v], S::mul(scale, S::to_float(sum[r][v]))) })
        });
    }
    for (r, out) in out.iter_mut().enumerate().take(R) {
        for (v, out) in out[first..].chunks_exact_mut(S::WIDTH).take(NV).enumerate() {
            // SAFETY: a chunk is a register.
            unsafe { S::store(acc[r][v], out.as_mut_ptr()) };
        }
    }
}
