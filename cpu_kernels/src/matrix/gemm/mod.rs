//! f32 matrix product: C = alpha * A B + beta * C, with operands that may be dequantised while they are packed.
//!
//! Every element of C is computed the same way whatever m, n, its place, and the division among threads: k is cut into
//! blocks of [`KC`]; within a block one chain of fused multiply-adds in ascending k starts from zero; the blocks are
//! added to C in order (`C = alpha * block + beta * C`, then `C = alpha * block + C`, fused). So one row computed alone
//! has the bits it has in a large batch. The SIMD levels agree bit for bit; `Scalar` uses the same order with
//! separate multiply and add, and differs by rounding only.
//!
//! The loops follow Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): panels of B stay
//! in the first-level cache while A streams past them.

mod pack;
mod scalar;
mod tile;

use crate::matrix::{fits, packed_row_bytes, scratch::Scratch, split};
use crate::{Level, at_level};
use half::f16;
use std::ops::Range;

/// Length of one accumulation chain over k. Part of the numeric definition: changing it changes bits.
pub const KC: usize = 256;
/// Columns of B packed at a time, a multiple of every tile width.
const NC: usize = 512;
/// Rows of A packed at a time, a multiple of every tile height.
const MC: usize = 120;

/// An operand of [`Gemm`].
#[derive(Clone, Copy, Debug)]
pub enum Mat<'a> {
    /// Element (i, j) is `data[i * row_stride + j * col_stride]`: any row- or column-major view.
    Dense {
        /// The values.
        data: &'a [f32],
        /// Elements from a row to the next.
        row_stride: usize,
        /// Elements from a column to the next.
        col_stride: usize,
    },
    /// The same with f16 values.
    Half {
        /// The values.
        data: &'a [f16],
        /// Elements from a row to the next.
        row_stride: usize,
        /// Elements from a column to the next.
        col_stride: usize,
    },
    /// Ternary weights (rows, cols) in canonical packing, `ceil(cols / 128) * 32` bytes a row, times
    /// `scales` (rows, cols / group). `group` is a multiple of 32 that divides `cols`.
    Ternary {
        /// (rows, packed bytes of a row).
        codes: &'a [u8],
        /// (rows, cols / group).
        scales: &'a [f32],
        /// Consecutive columns that share a scale.
        group: usize,
        /// Columns of the matrix.
        cols: usize,
    },
    /// `codes` (rows, cols) times `steps` (rows).
    Int8 {
        /// (rows, cols).
        codes: &'a [i8],
        /// (rows).
        steps: &'a [f32],
        /// Columns of the matrix.
        cols: usize,
    },
}

impl<'a> Mat<'a> {
    /// A row-major matrix with `cols` contiguous columns.
    pub fn row_major(data: &'a [f32], cols: usize) -> Self {
        Mat::Dense { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of a row-major matrix that has `cols` columns as stored.
    pub fn transposed(data: &'a [f32], cols: usize) -> Self {
        Mat::Dense { data, row_stride: 1, col_stride: cols }
    }

    /// Panics unless every element of a (rows, cols) matrix lies inside the slices. The packing code relies on it.
    fn check(&self, name: &str, rows: usize, cols: usize) {
        if rows == 0 || cols == 0 {
            return;
        }
        let strided = |values: usize, row_stride: usize, col_stride: usize| {
            let last = (rows - 1).checked_mul(row_stride).zip((cols - 1).checked_mul(col_stride));
            let last = last.and_then(|(r, c)| r.checked_add(c));
            assert!(
                last.is_some_and(|l| l < values),
                "{name}: ({rows}, {cols}) with strides ({row_stride}, {col_stride}) exceeds {values} values"
            );
        };
        match *self {
            Mat::Dense { data, row_stride, col_stride } => strided(data.len(), row_stride, col_stride),
            Mat::Half { data, row_stride, col_stride } => strided(data.len(), row_stride, col_stride),
            Mat::Ternary { codes, scales, group, cols: stored } => {
                assert_eq!(stored, cols, "{name}: columns");
                assert!(
                    group > 0 && group.is_multiple_of(32) && cols.is_multiple_of(group),
                    "{name}: group {group} of {cols} columns"
                );
                let (row_bytes, groups) = (packed_row_bytes(cols), cols / group);
                assert!(fits(codes.len(), rows, row_bytes, row_bytes), "{name}: {} bytes of codes", codes.len());
                assert!(fits(scales.len(), rows, groups, groups), "{name}: {} scales", scales.len());
            }
            Mat::Int8 { codes, steps, cols: stored } => {
                assert_eq!(stored, cols, "{name}: columns");
                assert!(fits(codes.len(), rows, cols, cols), "{name}: {} codes for ({rows}, {cols})", codes.len());
                assert!(steps.len() >= rows, "{name}: {} steps for {rows} rows", steps.len());
            }
        }
    }

    /// Element (i, j): the definition of each encoding.
    #[inline]
    fn get(&self, i: usize, j: usize) -> f32 {
        match *self {
            Mat::Dense { data, row_stride, col_stride } => data[i * row_stride + j * col_stride],
            Mat::Half { data, row_stride, col_stride } => data[i * row_stride + j * col_stride].to_f32(),
            Mat::Ternary { codes, scales, group, cols } => {
                let byte = codes[i * packed_row_bytes(cols) + j / 128 * 32 + j % 32];
                let code = i32::from(byte >> (j % 128 / 32 * 2) & 3) - 1;
                code as f32 * scales[i * (cols / group) + j / group]
            }
            Mat::Int8 { codes, steps, cols } => f32::from(codes[i * cols + j]) * steps[i],
        }
    }
}

/// One product: C (m, n) = alpha * A (m, k) * B (k, n) + beta * C.
///
/// In a `short` product a dense operand is first rounded to 11 significant bits, those of f16 (and of TF32), to nearest, ties to
/// even, at any exponent: with them a multiplication of f16 matrices whose range is taken care of gives the same.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A and rows of B.
    pub k: usize,
    /// The left operand.
    pub a: Mat<'a>,
    /// The right operand.
    pub b: Mat<'a>,
    /// The factor of the product.
    pub alpha: f32,
    /// The factor of C. With 0, C is not read and may hold anything.
    pub beta: f32,
    /// The caller knows that m = n and that the result is symmetric (X X^T, or a power of a symmetric matrix, and a
    /// symmetric C where beta is not 0): only the upper triangle is computed, then mirrored. The bits are those of the
    /// full computation.
    pub symmetric: bool,
    /// Whether dense operands are rounded.
    pub short: bool,
    /// (k) Factors of the columns of a dense A, before it is rounded. Empty for none.
    pub steps: &'a [f32],
}

impl<'a> Gemm<'a> {
    /// C = A B.
    pub fn new((m, n, k): (usize, usize, usize), a: Mat<'a>, b: Mat<'a>) -> Self {
        Self { m, n, k, a, b, alpha: 1.0, beta: 0.0, symmetric: false, short: false, steps: &[] }
    }

    /// Computes the whole of C (m, n) on this thread; `c` is row-major with rows `ldc` apart.
    pub fn run(&self, level: Level, c: &mut [f32], ldc: usize) {
        assert!(ldc >= self.n && fits(c.len(), self.m, self.n, ldc), "c: ({}, {}) by {ldc}", self.m, self.n);
        // SAFETY: `c` holds m rows of n values `ldc` apart, borrowed exclusively; there is one part.
        unsafe { self.run_part(level, c.as_mut_ptr(), ldc, 0, 1) }
    }

    /// Computes the share of `part` out of `parts`. C is complete when every part has been computed, on any threads in
    /// any order.
    ///
    /// # Safety
    /// - `c` is valid for reads and writes of `m` rows of `n` floats, rows `ldc >= n` apart, and none of it overlaps A
    ///   or B.
    /// - Parts that run at the same time have equal arguments but for `part`, and different `part`s; nothing else
    ///   accesses C meanwhile.
    pub unsafe fn run_part(&self, level: Level, c: *mut f32, ldc: usize, part: usize, parts: usize) {
        level.require();
        self.a.check("a", self.m, self.k);
        self.b.check("b", self.k, self.n);
        assert!(ldc >= self.n && (!self.symmetric || self.m == self.n), "({}, {}) by {ldc}", self.m, self.n);
        assert!(self.steps.is_empty() || self.steps.len() >= self.k, "{} steps of {}", self.steps.len(), self.k);
        let shape = Shape::of(level);
        let (rows, cols) = self.share(level, part, parts);
        if rows.is_empty() || cols.is_empty() {
            return;
        }
        let height = rows.len().min(MC).next_multiple_of(shape.mr);
        let width = cols.len().min(NC).next_multiple_of(shape.nr);
        let depth = self.k.min(KC);
        let a_len = if self.direct_a().is_some() { 0 } else { height * depth };
        let mut scratch = Scratch::of_thread();
        let [a, b] = scratch.slices([a_len, width * depth]);
        let run = Run { gemm: self, shape, level, c, ldc };
        // SAFETY: the caller's contract on C; rows and cols lie in C and are this part's alone.
        unsafe { run.area(rows, cols, a, b) }
    }

    /// The rows and columns of C that `part` of `parts` reads and writes; of a symmetric result also their mirror image.
    pub(crate) fn share(&self, level: Level, part: usize, parts: usize) -> (Range<usize>, Range<usize>) {
        let shape = Shape::of(level);
        if self.symmetric {
            let cols = split::triangle(self.n, shape.nr, part, parts);
            return (0..cols.end, cols);
        }
        // About 32 multiply-adds in the time of packing one element.
        let row_cost = if self.direct_a().is_some() { 4 } else { 32 };
        split::tile((self.m, self.n), (shape.mr, shape.nr), (row_cost, 32), part, parts)
    }

    /// A's data and row stride if k runs contiguously in it and it is used as it is: then tiles read A where it lies.
    fn direct_a(&self) -> Option<(&'a [f32], usize)> {
        match self.a {
            Mat::Dense { data, row_stride, col_stride: 1 } if !self.short && self.steps.is_empty() => {
                Some((data, row_stride))
            }
            _ => None,
        }
    }
}

/// One register tile: C (rows, cols) = alpha * (sum over p < k) + beta * C. The pointers are valid for it: A's bounds were
/// checked, the panels are packed, and the tile lies in C.
struct Tile {
    rows: usize,
    cols: usize,
    k: usize,
    /// Element (r, p) at `a[r * a_stride + p]` if `a_direct`, else at `a[p * a_stride + r]`.
    a: *const f32,
    a_stride: usize,
    a_direct: bool,
    /// Rows of nr values, `nr` apart.
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    /// In row r, columns below `skip + r` are left alone: the part of a symmetric result that is mirrored.
    skip: isize,
    alpha: f32,
    beta: f32,
}

/// The shape of a level's register tile.
#[derive(Clone, Copy)]
struct Shape {
    mr: usize,
    nr: usize,
}

impl Shape {
    fn of(level: Level) -> Self {
        let (mr, nr) = match level {
            Level::Avx512 => (12, 32),
            Level::Avx2 | Level::Neon | Level::Dotprod => (6, 16),
            Level::Scalar | Level::Simd128 => (scalar::MR, scalar::NR),
        };
        Shape { mr, nr }
    }
}

/// Computes a tile that has the level's shape or a smaller one.
fn run_tile(level: Level, t: &Tile) {
    use {scalar::tile as plain, tile::tile as simd};
    at_level!(level, [plain, simd::<Simd128, 4, 2>, simd::<Avx2, 6, 2>, simd::<Avx512, 12, 2>, simd::<Neon, 6, 4>, simd::<Neon, 6, 4>], (t: &Tile))
}

/// One part of a product under way.
struct Run<'a> {
    gemm: &'a Gemm<'a>,
    shape: Shape,
    level: Level,
    c: *mut f32,
    ldc: usize,
}

impl Run<'_> {
    /// Computes the given area of C, or its upper triangle and the mirror image of that.
    ///
    /// # Safety
    /// As for [`Gemm::run_part`]; the area (with its mirror image, if symmetric) is this call's alone.
    unsafe fn area(&self, rows: Range<usize>, cols: Range<usize>, a_buf: &mut [f32], b_buf: &mut [f32]) {
        let (g, nr) = (self.gemm, self.shape.nr);
        for j0 in cols.clone().step_by(NC) {
            let block_cols = j0..cols.end.min(j0 + NC);
            // At least one block, so that k = 0 still scales C.
            for p0 in (0..g.k.max(1)).step_by(KC) {
                let depth = KC.min(g.k - p0);
                pack::panels(self.level, &g.b, false, p0..p0 + depth, block_cols.clone(), nr, b_buf);
                if g.short && matches!(g.b, Mat::Dense { .. }) {
                    pack::shorten(&mut b_buf[..block_cols.len().next_multiple_of(nr) * depth]);
                }
                let last = if g.symmetric { rows.end.min(block_cols.end) } else { rows.end };
                for i0 in (rows.start..last).step_by(MC) {
                    // SAFETY: passed on.
                    unsafe { self.block(i0..last.min(i0 + MC), block_cols.clone(), p0, depth, a_buf, b_buf) };
                }
            }
        }
        if g.symmetric {
            // SAFETY: passed on; the columns' upper part and its mirror image are this call's alone.
            unsafe { pack::mirror(self.level, self.c, self.ldc, cols) };
        }
    }

    /// One block of rows against the packed block of B.
    ///
    /// # Safety
    /// As for [`Self::area`].
    unsafe fn block(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        p0: usize,
        depth: usize,
        a_buf: &mut [f32],
        b_buf: &[f32],
    ) {
        let (g, Shape { mr, nr }) = (self.gemm, self.shape);
        let direct = g.direct_a();
        if direct.is_none() {
            pack::panels(self.level, &g.a, true, p0..p0 + depth, rows.clone(), mr, a_buf);
            let packed = &mut a_buf[..rows.len().next_multiple_of(mr) * depth];
            if !g.steps.is_empty() {
                pack::scale(packed, mr, &g.steps[p0..p0 + depth]);
            }
            if g.short && matches!(g.a, Mat::Dense { .. }) {
                pack::shorten(packed);
            }
        }
        let beta = if p0 == 0 { g.beta } else { 1.0 };
        for (jn, j) in cols.clone().step_by(nr).enumerate() {
            for (im, i) in rows.clone().step_by(mr).enumerate() {
                let skip = if g.symmetric { i as isize - j as isize } else { -(mr as isize) };
                if skip >= nr as isize {
                    break;
                }
                let (a, a_stride) = match direct {
                    // An empty k leaves no element to point at.
                    Some((data, _)) if depth == 0 => (data.as_ptr(), 0),
                    Some((data, stride)) => (data[i * stride + p0..].as_ptr(), stride),
                    None => (a_buf[im * depth * mr..].as_ptr(), mr),
                };
                let t = Tile {
                    rows: mr.min(rows.end - i),
                    cols: nr.min(cols.end - j),
                    k: depth,
                    a,
                    a_stride,
                    a_direct: direct.is_some(),
                    b: b_buf[jn * depth * nr..].as_ptr(),
                    // SAFETY: (i, j) lies in C.
                    c: unsafe { self.c.add(i * self.ldc + j) },
                    ldc: self.ldc,
                    skip,
                    alpha: g.alpha,
                    beta,
                };
                run_tile(self.level, &t);
            }
        }
    }
}
