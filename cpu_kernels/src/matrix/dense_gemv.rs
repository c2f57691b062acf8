//! A few rows times a constant matrix of floats: y (rows, outs) = x (rows, dim) w^T, as the head of a model does for every
//! token.
//!
//! Such a product is bound by reading w, so w is kept in the order in which it is read: panels of 64 outputs, (dim, 64)
//! each. An element is summed as [`Gemm`](crate::matrix::gemm::Gemm) sums it, chains of [`KC`] added in order, so it has the
//! same bits.

use crate::matrix::fits;
use crate::matrix::gemm::KC;
use crate::matrix::scratch::Line;
use crate::simd::isa::{Lanes, prefetch};
use crate::{Level, at_level};
use bytemuck::{Pod, Zeroable};
use half::f16;
use std::ops::Range;

/// Outputs of a panel.
const PANEL: usize = 64;
/// Rows up to which this beats packing w for a large product.
pub const FEW_ROWS: usize = 4;

/// A matrix (outs, dim) in panels.
#[derive(Clone, Debug)]
pub struct DensePanels {
    outs: usize,
    dim: usize,
    /// (ceil(outs / PANEL), dim, PANEL): f16 or f32.
    values: Vec<Line>,
    half: bool,
}

impl DensePanels {
    /// Copies w (outs, dim).
    pub fn new(w: &[f32], outs: usize, dim: usize) -> Self {
        DensePanels { outs, dim, values: panels(w, outs, dim, |x| x), half: false }
    }

    /// Copies w (outs, dim), widened to f32 where the level does not read f16.
    pub fn of_half(level: Level, w: &[f16], outs: usize, dim: usize) -> Self {
        let half = reads_half(level);
        let values = if half { panels(w, outs, dim, f16::to_bits) } else { panels(w, outs, dim, f16::to_f32) };
        DensePanels { outs, dim, values, half }
    }

    /// (outs, dim)
    pub fn shape(&self) -> (usize, usize) {
        (self.outs, self.dim)
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }

    /// Computes this part's outputs of y (rows, outs) from x (rows, dim).
    ///
    /// # Safety
    /// `y` is valid for writes of `rows * outs` floats and overlaps no input; parts that run at the same time have equal
    /// arguments but for `part`, and nothing else accesses y meanwhile.
    pub unsafe fn run_part(&self, level: Level, x: &[f32], rows: usize, y: *mut f32, part: usize, parts: usize) {
        level.require();
        assert!(
            fits(x.len(), rows, self.dim, self.dim) && part < parts,
            "x: {} values for ({rows}, {})",
            x.len(),
            self.dim
        );
        assert!(!self.half || reads_half(level), "f16 panels at level {level}");
        let panels = self.outs.div_ceil(PANEL);
        let mine = panels * part / parts..panels * (part + 1) / parts;
        for first in (0..rows).step_by(FEW_ROWS) {
            let area = Area {
                panels: mine.clone(),
                x: &x[first * self.dim..(first + FEW_ROWS).min(rows) * self.dim],
                // SAFETY: row `first` lies in y.
                y: unsafe { y.add(first * self.outs) },
            };
            let of = self;
            at_level!(level, [few::<Plain, 16, 16, 16>, few::<Avx2, 8, 4, 2>, few::<Avx512, 4, 4, 4>, few::<Neon, 16, 8, 4>], (of: &DensePanels, area: Area<'_>));
        }
    }
}

/// Whether a level has instructions that widen f16.
fn reads_half(level: Level) -> bool {
    !matches!(level, Level::Scalar | Level::Simd128)
}

/// Lays w (outs, dim) out in panels; what lies behind the last output is 0.
fn panels<F: Copy, T: Pod>(w: &[F], outs: usize, dim: usize, convert: impl Fn(F) -> T) -> Vec<Line> {
    assert!(dim > 0 && fits(w.len(), outs, dim, dim), "({outs}, {dim}) of {} values", w.len());
    let bytes = outs.next_multiple_of(PANEL) * dim * size_of::<T>();
    let mut lines = vec![Line::zeroed(); bytes.div_ceil(size_of::<Line>())];
    let values: &mut [T] = bytemuck::cast_slice_mut(&mut lines);
    for (o, row) in w[..outs * dim].chunks_exact(dim).enumerate() {
        let at = o / PANEL * PANEL * dim + o % PANEL;
        for (to, x) in values[at..].iter_mut().step_by(PANEL).zip(row) {
            *to = convert(*x);
        }
    }
    lines
}

/// Up to [`FEW_ROWS`] rows of x and y, and the panels to compute.
struct Area<'a> {
    panels: Range<usize>,
    x: &'a [f32],
    y: *mut f32,
}

/// One row sums N1 registers at once, two rows N2 each, more rows N4: as many as there are. f32 is
/// read in one pass whatever the rows: its chain does not stay in the first cache for a second one.
#[inline(always)]
fn few<L: Lanes, const N1: usize, const N2: usize, const N4: usize>(of: &DensePanels, area: Area<'_>) {
    match (area.x.len() / of.dim, of.half) {
        (1, true) => rows::<L, N1, 1, true>(of, area),
        (1, false) => rows::<L, N1, 1, false>(of, area),
        (2, true) => rows::<L, N2, 2, true>(of, area),
        (2, false) => rows::<L, N1, 2, false>(of, area),
        (3, true) => rows::<L, N4, 3, true>(of, area),
        (3, false) => rows::<L, N1, 3, false>(of, area),
        (_, true) => rows::<L, N4, FEW_ROWS, true>(of, area),
        (_, false) => rows::<L, N1, FEW_ROWS, false>(of, area),
    }
}

#[inline(always)]
fn rows<L: Lanes, const N: usize, const R: usize, const HALF: bool>(of: &DensePanels, area: Area<'_>) {
    for panel in area.panels.clone() {
        let mut total = [[0.0f32; PANEL]; R];
        for start in (0..of.dim).step_by(KC) {
            if N * L::WIDTH == PANEL {
                chain::<L, N, R, HALF>(of, &area, (panel, start, 0), &mut total);
            } else {
                for first in (0..PANEL).step_by(N * L::WIDTH) {
                    chain::<L, N, R, HALF>(of, &area, (panel, start, first), &mut total);
                }
            }
        }
        let cols = PANEL.min(of.outs - panel * PANEL);
        for (r, total) in total.iter().enumerate() {
            // SAFETY: these columns lie in y and are this part's.
            unsafe { std::ptr::copy_nonoverlapping(total.as_ptr(), area.y.add(r * of.outs + panel * PANEL), cols) };
        }
    }
}

/// Adds the chain of [`KC`] inputs from `start` on, for N registers of a panel from output `first` on.
#[inline(always)]
fn chain<L: Lanes, const N: usize, const R: usize, const HALF: bool>(
    of: &DensePanels,
    area: &Area<'_>,
    (panel, start, first): (usize, usize, usize),
    total: &mut [[f32; PANEL]; R],
) {
    let (dim, size) = (of.dim, if HALF { 2 } else { 4 });
    let values = of.values.as_ptr().cast::<u8>();
    let mut acc = [[L::splat(0.0); N]; R];
    for k in start..dim.min(start + KC) {
        // SAFETY: k < dim, and the panel exists.
        let at = unsafe { values.add(((panel * dim + k) * PANEL + first) * size) };
        (0..N * L::WIDTH * size).step_by(64).for_each(|line| prefetch(at.wrapping_add(line)));
        // SAFETY: N registers from `first` on are in the panel.
        let w: [L::F; N] = std::array::from_fn(|v| unsafe {
            if HALF {
                L::load_half(at.cast::<u16>().add(v * L::WIDTH))
            } else {
                L::load(at.cast::<f32>().add(v * L::WIDTH))
            }
        });
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: x holds R rows of dim.
            let x = L::splat(unsafe { *area.x.get_unchecked(r * dim + k) });
            for (acc, w) in acc.iter_mut().zip(w) {
                *acc = L::mul_add(x, w, *acc);
            }
        }
    }
    for (total, acc) in total.iter_mut().zip(acc) {
        for (total, acc) in total[first..].chunks_exact_mut(L::WIDTH).zip(acc) {
            // SAFETY: a chunk is a register.
            unsafe {
                let sum = if start == 0 { acc } else { L::mul_add(acc, L::splat(1.0), L::load(total.as_ptr())) };
                L::store(sum, total.as_mut_ptr());
            }
        }
    }
}
