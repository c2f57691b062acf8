//! Matrix products inside attention: small, causal, on operands copied to where a core reads them fastest.
//!
//! Each element of a product is one chain of multiply-adds over the inner index, in order, from zero (or from what is
//! there): its bits depend neither on the tile it falls into nor on the size of the matrices.

use crate::simd::isa::Lanes;
use crate::simd::math::LANES;
use std::ops::Range;

/// Columns of a panel.
pub(crate) const PANEL: usize = 64;
/// Rows of scores that are worked on at once: a multiple of every tile's rows.
pub(crate) const ROWS: usize = 24;

/// The right operand (depth, columns), cut into panels of [`PANEL`] columns.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    data: &'a [f32],
    depth: usize,
    columns: usize,
    /// From a row of a panel to the next, and from a panel to the next.
    strides: (usize, usize),
    pages: Option<Pages<'a>>,
}

/// An operand in pages of [`PANEL`] columns, or rows, which lie anywhere.
#[derive(Clone, Copy)]
struct Pages<'a> {
    /// The place of each page, in pages.
    list: &'a [u32],
    /// From a page to the next.
    stride: usize,
    of_rows: bool,
}

/// Rows of a matrix inside a larger one.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub rows: usize,
}

impl<'a> Panels<'a> {
    /// Dense panels, (depth, PANEL) each.
    #[inline(always)]
    pub fn dense(data: &'a [f32], depth: usize) -> Self {
        Panels { data, depth, columns: data.len() / depth.max(1), strides: (PANEL, PANEL * depth), pages: None }
    }

    /// Panels (depth, PANEL) at these places, in units of `stride`.
    #[inline(always)]
    pub fn in_pages(data: &'a [f32], depth: usize, (list, stride): (&'a [u32], usize)) -> Self {
        let pages = Some(Pages { list, stride, of_rows: false });
        Panels { data, depth, columns: list.len() * PANEL, strides: (PANEL, 0), pages }
    }

    /// `depth` rows of `columns` elements, [`PANEL`] rows at each of these places, in units of `stride`. Whole registers are read,
    /// up to a multiple of [`LANES`] elements of each row: behind the last row there must be as many.
    #[inline(always)]
    pub fn rows_in_pages(
        data: &'a [f32],
        (depth, columns): (usize, usize),
        (list, stride): (&'a [u32], usize),
    ) -> Self {
        let pages = Some(Pages { list, stride, of_rows: true });
        Panels { data, depth, columns, strides: (columns, PANEL), pages }
    }

    /// Where the row of the panel with this column starts, from which on rows are `strides.0` apart, and how many are.
    #[inline(always)]
    fn place(&self, row: usize, column: usize) -> (usize, usize) {
        let panel = column / PANEL;
        match self.pages {
            None => (panel * self.strides.1 + row * self.strides.0, self.depth - row),
            Some(Pages { list, stride, of_rows: false }) => {
                (list[panel] as usize * stride + row * self.strides.0, self.depth - row)
            }
            Some(Pages { list, stride, of_rows: true }) => {
                let at = list[row / PANEL] as usize * stride + panel * self.strides.1 + row % PANEL * self.strides.0;
                (at, PANEL - row % PANEL)
            }
        }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Elements of the panels of a (depth, columns) matrix.
    pub fn size(depth: usize, columns: usize) -> usize {
        columns.next_multiple_of(PANEL) * depth
    }

    /// The operand whose rows are the first `columns` elements of `rows`.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    pub fn copied(to: &'a mut [f32], rows: Rows<'_>, columns: usize) -> Self {
        let depth = rows.rows;
        let to = &mut to[..Self::size(depth, columns)];
        for (panel, to) in to.chunks_exact_mut(PANEL * depth.max(1)).enumerate() {
            let span = panel * PANEL..columns.min((panel + 1) * PANEL);
            for (i, to) in to.chunks_exact_mut(PANEL).enumerate() {
                to[..span.len()].copy_from_slice(&rows.data[i * rows.stride..][span.clone()]);
            }
        }
        Panels::dense(to, depth)
    }

    /// The operand whose columns are the first `depth` elements of `rows`.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    pub fn transposed(to: &'a mut [f32], rows: Rows<'_>, depth: usize) -> Self {
        const SIDE: usize = 8;
        let to = &mut to[..Self::size(depth, rows.rows)];
        for r in (0..rows.rows).step_by(SIDE) {
            let to = &mut to[r / PANEL * PANEL * depth + r % PANEL..];
            for d in (0..depth).step_by(SIDE) {
                if r + SIDE <= rows.rows && d + SIDE <= depth {
                    let mut block = [[0.0; SIDE]; SIDE];
                    for (i, block) in block.iter_mut().enumerate() {
                        block.copy_from_slice(&rows.data[(r + i) * rows.stride + d..][..SIDE]);
                    }
                    for j in 0..SIDE {
                        let to: &mut [f32; SIDE] = (&mut to[(d + j) * PANEL..][..SIDE]).try_into().unwrap();
                        *to = std::array::from_fn(|i| block[i][j]);
                    }
                    continue;
                }
                for i in 0..SIDE.min(rows.rows - r) {
                    for j in 0..SIDE.min(depth - d) {
                        to[(d + j) * PANEL + i] = rows.data[(r + i) * rows.stride + d + j];
                    }
                }
            }
        }
        Panels::dense(to, depth)
    }
}

/// c = a b, or c + a b when `add`, in tiles of DOWN rows by ACROSS registers.
///
/// Of the rows of a tile that starts at row r, the columns `columns(r)` are computed (widened to whole registers) over the
/// inner indices `depth(r)`. Rows of c are `stride` apart.
///
/// Browsers have one set of instructions for all of a module, so there it is a call, which keeps the download small.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
pub(crate) fn product<L: Lanes, const DOWN: usize, const ACROSS: usize>(
    (a, b): (Rows<'_>, Panels<'_>),
    (c, stride): (&mut [f32], usize),
    add: bool,
    columns: &dyn Fn(usize) -> Range<usize>,
    depth: &dyn Fn(usize) -> Range<usize>,
) {
    for first in (0..b.columns).step_by(PANEL) {
        for r in (0..a.rows).step_by(DOWN) {
            let (columns, depth) = (columns(r), depth(r));
            let mut column = columns.start.max(first) / LANES * LANES;
            let end = columns.end.min(first + PANEL).next_multiple_of(LANES);
            if column >= end || columns.end <= first {
                continue;
            }
            let last = a.rows - 1;
            assert!(depth.start <= depth.end && depth.end <= b.depth && last * a.stride + depth.end <= a.data.len());
            assert!(last * stride + end <= c.len() && end <= first + PANEL);
            while column < end {
                let registers = ((end - column) / L::WIDTH).min(ACROSS);
                let (mut a_rows, mut c_rows) = ([std::ptr::null(); DOWN], [std::ptr::null_mut(); DOWN]);
                for i in 0..DOWN {
                    // Beyond the last row, the last one is computed again.
                    let row = (r + i).min(last);
                    a_rows[i] = a.data[row * a.stride + depth.start..].as_ptr();
                    c_rows[i] = c[row * stride + column..].as_mut_ptr();
                }
                let width = column - first + registers * L::WIDTH;
                let b_rows = |i: usize| {
                    let row = depth.start + i;
                    let (at, rows) = b.place(row, first);
                    let rows = rows.min(depth.end - row);
                    (&b.data[at..][column - first..(rows - 1) * b.strides.0 + width], b.strides.0, rows)
                };
                // SAFETY: the assertions above bound the last row of `a` and of `c`; columns stay in the panel.
                unsafe {
                    match registers {
                        1 => tile::<L, DOWN, 1>(depth.len(), a_rows, b_rows, c_rows, add),
                        2 if ACROSS > 2 => tile::<L, DOWN, 2>(depth.len(), a_rows, b_rows, c_rows, add),
                        3 if ACROSS > 3 => tile::<L, DOWN, 3>(depth.len(), a_rows, b_rows, c_rows, add),
                        _ => tile::<L, DOWN, ACROSS>(depth.len(), a_rows, b_rows, c_rows, add),
                    }
                }
                column += registers * L::WIDTH;
            }
        }
    }
}

/// # Safety
/// The rows of `a` hold `depth` floats, those of `c` ACROSS registers. `b(i)` holds rows from i on, of ACROSS registers each, and
/// says how far they are apart and how many, at least one and within `depth`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "each index is a register")]
unsafe fn tile<'b, L: Lanes, const DOWN: usize, const ACROSS: usize>(
    depth: usize,
    a: [*const f32; DOWN],
    b: impl Fn(usize) -> (&'b [f32], usize, usize),
    c: [*mut f32; DOWN],
    add: bool,
) {
    let mut sums = [[L::splat(0.0); ACROSS]; DOWN];
    // SAFETY: all accesses are within the operands, by this function's contract.
    unsafe {
        if add {
            for r in 0..DOWN {
                for v in 0..ACROSS {
                    sums[r][v] = L::load(c[r].add(v * L::WIDTH));
                }
            }
        }
        let mut first = 0;
        while first < depth {
            let (b, stride, rows) = b(first);
            for i in 0..rows {
                let mut row = [L::splat(0.0); ACROSS];
                for v in 0..ACROSS {
                    row[v] = L::load(b.as_ptr().add(i * stride + v * L::WIDTH));
                }
                for r in 0..DOWN {
                    let factor = L::splat(*a[r].add(first + i));
                    for v in 0..ACROSS {
                        sums[r][v] = L::mul_add(factor, row[v], sums[r][v]);
                    }
                }
            }
            first += rows;
        }
        for r in 0..DOWN {
            for v in 0..ACROSS {
                L::store(sums[r][v], c[r].add(v * L::WIDTH));
            }
        }
    }
}

/// Which blocks of a triangle cost most: those of late queries, or those of early keys.
#[derive(Clone, Copy)]
pub(crate) enum Cost {
    Rising,
    Falling,
}

/// The `part`-th of `parts` shares of `pairs` triangles cut into `blocks` blocks each: runs of blocks (pair, blocks) of about equal work.
pub(crate) fn share(
    (part, parts): (usize, usize),
    pairs: usize,
    blocks: usize,
    cost: Cost,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let bound = |part: usize| {
        let rest = (pairs * part % parts) as f64 / parts as f64;
        let share = match cost {
            Cost::Rising => rest.sqrt(),
            Cost::Falling => 1.0 - (1.0 - rest).sqrt(),
        };
        (pairs * part / parts, (share * blocks as f64).round() as usize)
    };
    let (start, end) = (bound(part), bound(part + 1));
    (start.0..=end.0).filter_map(move |pair| {
        let first = if pair == start.0 { start.1 } else { 0 };
        let last = if pair == end.0 { end.1 } else { blocks };
        (first < last).then_some((pair, first..last))
    })
}
