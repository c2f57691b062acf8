//! Quantised linear layer for few rows, as in decoding: the product of [`TernaryGemm`], bit for bit, with weights that
//! are read once and decoded in registers.
//!
//! [`PackedTernary`] is made once from the canonical codes. Its tiles interleave the weights of 16 or 32 outputs, so that
//! each lane of a register is an output: a tile is one sequential stream, scales are one vector a group, and nothing is
//! summed across lanes. Which layout is fastest depends on the machine: [`Layouts`] measures.

mod choose;
mod packed;
mod pairs32;
mod rows16;

pub use choose::Layouts;
pub use packed::{Layout, PackedTernary};

use crate::Level;
use crate::matrix::{fits, scratch::Scratch, split, ternary_gemm::TernaryGemm};
use crate::simd::isa::Isa;
use std::ops::Range;

/// Weights that stay in a second-level cache while rows of activations pass.
const BLOCK_BYTES: usize = 256 << 10;

/// One product: y (rows, outs) from activations (rows, dim) and packed weights (outs, dim).
#[derive(Clone, Copy, Debug)]
pub struct TernaryGemv<'a> {
    /// The weights, with their shape.
    pub weights: &'a PackedTernary,
    /// Rows of activations.
    pub rows: usize,
    /// Activations (rows, dim), each in -127..=127.
    pub xq: &'a [i8],
    /// Steps of the activations (rows).
    pub steps: &'a [f32],
}

impl TernaryGemv<'_> {
    /// Computes all of y on this thread, in rows `ldy >= outs` apart.
    pub fn run(&self, level: Level, y: &mut [f32], ldy: usize) {
        let outs = self.weights.outs();
        assert!(ldy >= outs && fits(y.len(), self.rows, outs, ldy), "y: {} by {ldy}", y.len());
        // SAFETY: `y` holds `rows` rows of `outs` values `ldy` apart, borrowed exclusively; there is one part.
        unsafe { self.run_part(level, y.as_mut_ptr(), ldy, 0, 1) }
    }

    /// Computes the share of `part` out of `parts`. y is complete when every part has been computed, on any threads in
    /// any order.
    ///
    /// # Panics
    /// Where the layout of the weights has no kernel at `level`: see [`Layout::of`].
    ///
    /// # Safety
    /// - `y` is valid for reads and writes of `rows` rows of `outs` floats, rows `ldy >= outs` apart, and overlaps no
    ///   input.
    /// - Parts that run at the same time have equal arguments but for `part`, and different `part`s; nothing else
    ///   accesses y meanwhile.
    pub unsafe fn run_part(&self, level: Level, y: *mut f32, ldy: usize, part: usize, parts: usize) {
        level.require();
        let Self { weights: w, rows, xq, steps } = *self;
        assert!(part < parts, "part {part} of {parts}");
        assert!(fits(xq.len(), rows, w.dim(), w.dim()), "xq: {} values for ({rows}, {})", xq.len(), w.dim());
        assert!(steps.len() >= rows, "steps: {} for {rows} rows", steps.len());
        if let Some((codes, scales)) = w.canonical() {
            let [outs, dim, group] = [w.outs(), w.dim(), w.group()];
            let product = TernaryGemm { rows, outs, dim, group, xq, steps, codes, scales };
            // SAFETY: passed on.
            return unsafe { product.run_part(level, y, ldy, part, parts) };
        }
        assert!(w.layout().runs_at(level), "layout {} has no kernel at level {level}", w.layout());
        let tiles = split::range(w.tiles(), 1, part, parts);
        if tiles.is_empty() {
            return;
        }
        let (at_once, prepared) = match w.layout() {
            Layout::Pairs32 => (1, pairs32::prepared_bytes(w)),
            _ => (rows16::ROWS, rows16::ROWS * rows16::prepared_bytes(w)),
        };
        // With more rows than one pass takes, weights are reused from the cache.
        let block = if rows <= at_once { tiles.len() } else { (BLOCK_BYTES * w.tiles() / w.bytes()).max(1) };
        let mut scratch = Scratch::of_thread();
        let [prepared] = scratch.slices([prepared]);
        for start in tiles.clone().step_by(block) {
            for r in (0..rows).step_by(at_once) {
                let here = at_once.min(rows - r);
                let job = Job {
                    w,
                    x: &xq[r * w.dim()..(r + here) * w.dim()],
                    steps: &steps[r..r + here],
                    y: y.wrapping_add(r * ldy),
                    ldy,
                    tiles: start..tiles.end.min(start + block),
                };
                match w.layout() {
                    Layout::Pairs32 => pairs32::run(level, &job, prepared),
                    _ => rows16::run(level, &job, prepared),
                }
            }
        }
    }
}

/// What a kernel computes: some tiles of y for a few rows, as many as there are steps. The inputs have been checked, y is valid
/// for these outputs, and they are the job's alone.
struct Job<'a> {
    w: &'a PackedTernary,
    x: &'a [i8],
    steps: &'a [f32],
    y: *mut f32,
    ldy: usize,
    tiles: Range<usize>,
}

impl Job<'_> {
    /// Writes a register of results of row `r` from output `o` on, but for those behind the last output.
    ///
    /// # Safety
    /// The outputs are those of the job's tiles.
    #[inline(always)]
    unsafe fn store<S: Isa>(&self, r: usize, o: usize, values: S::F) {
        let (count, y) = (self.w.outs().saturating_sub(o), self.y.wrapping_add(r * self.ldy + o));
        // SAFETY: outputs o..o + count of row r lie in y, and those of them that are values are this job's.
        unsafe {
            if count >= S::WIDTH {
                S::store(values, y);
            } else {
                S::store_some(values, y, 0..count as isize);
            }
        }
    }
}

/// The kernel of a level that has none.
fn none(_: &Job<'_>, _: &mut [u8]) {
    unreachable!("only layouts of the level are run");
}
