//! Packing: any operand becomes panels of `stride` values a step of k, dequantised on the way.

use super::Mat;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::Level;
use std::ops::Range;

/// Packs with the functions of one level; false where the combination has none.
#[cfg(target_arch = "x86_64")]
macro_rules! simd {
    ($level:ident, $src:expr, $transpose:expr, $p:expr, $j:expr, $shape:expr) => {
        match *$src {
            Mat::Dense { data, row_stride, col_stride } => {
                let (ks, js) = if $transpose { (col_stride, row_stride) } else { (row_stride, col_stride) };
                let first = data.as_ptr().add($p * ks + $j * js);
                if ks == 1 {
                    $level::transpose(first, js, ($shape.width, $shape.k), $shape.dst, $shape.stride);
                }
                ks == 1
            }
            Mat::Ternary { codes, scales, group, cols } if !$transpose && $j % $shape.stride == 0 => {
                let row_bytes = super::packed_row_bytes(cols);
                let codes = codes.as_ptr().add($p * row_bytes + $j / 128 * 32 + $j % 32);
                let scales = scales.as_ptr().add($p * (cols / group) + $j / group);
                $level::pack_ternary(codes, row_bytes, ($j % 128 / 32 * 2) as i32, scales, cols / group, $shape);
                true
            }
            Mat::Int8 { codes, steps, cols } if !$transpose => {
                $level::pack_int8(codes.as_ptr().add($p * cols + $j), cols, steps.as_ptr().add($p), $shape);
                true
            }
            _ => false,
        }
    };
}

/// Packs elements (ks, js) of `src`, or of its transpose, into panels of `stride` columns, one after the other: in
/// each, the columns of one step of k are contiguous. What lies behind the last column is unspecified. For B the steps
/// of k are its rows; A is packed transposed.
///
/// The level is available, `src` has been checked to hold the elements, and `js` starts at a multiple of `stride`.
pub(super) fn panels(
    level: Level,
    src: &Mat,
    transpose: bool,
    ks: Range<usize>,
    js: Range<usize>,
    stride: usize,
    dst: &mut [f32],
) {
    assert!(dst.len() >= js.len().next_multiple_of(stride) * ks.len());
    if ks.is_empty() || js.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Mat::Dense { data, row_stride, col_stride } = *src {
        let (row, col) = if transpose { (col_stride, row_stride) } else { (row_stride, col_stride) };
        if col == 1 && level != Level::Scalar {
            let shape = Panel { k: ks.len(), width: js.len(), stride, dst: dst.as_mut_ptr() };
            // SAFETY: `level` is available by contract, `src` holds (ks, js), and `dst` was measured above.
            unsafe {
                let first = data.as_ptr().add(ks.start * row + js.start);
                return match level {
                    Level::Avx512 => avx512::pack_rows(first, row, shape),
                    _ => avx2::pack_rows(first, row, shape),
                };
            }
        }
    }
    for (j, dst) in js.clone().step_by(stride).zip(dst.chunks_exact_mut(ks.len() * stride)) {
        panel(level, src, transpose, ks.clone(), j..js.end.min(j + stride), stride, dst);
    }
}

/// One panel, of at most `stride` columns.
fn panel(level: Level, src: &Mat, transpose: bool, ks: Range<usize>, js: Range<usize>, stride: usize, dst: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        let shape = Panel { k: ks.len(), width: js.len(), stride, dst: dst.as_mut_ptr() };
        // SAFETY: as in `panels`, which is the only caller.
        let done = unsafe {
            match level {
                Level::Avx512 => simd!(avx512, src, transpose, ks.start, js.start, shape),
                Level::Avx2 => simd!(avx2, src, transpose, ks.start, js.start, shape),
                Level::Scalar | Level::Simd128 => false,
            }
        };
        if done {
            return;
        }
    }
    let _ = level;
    for (p, row) in ks.zip(dst.chunks_exact_mut(stride)) {
        for (j, d) in js.clone().zip(row) {
            *d = if transpose { src.get(j, p) } else { src.get(p, j) };
        }
    }
}

/// Rows of k that are copied to all panels before the next ones, so that wide reads meet few cache sets.
#[cfg(target_arch = "x86_64")]
pub(super) const COPY_ROWS: usize = 8;

/// The destination of one packing call: one panel, or several `k * stride` apart if `width` exceeds `stride`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub k: usize,
    pub width: usize,
    pub stride: usize,
    pub dst: *mut f32,
}

/// Copies the strictly upper part of the columns `cols` of the square matrix C to its mirror image.
///
/// # Safety
/// `c` is valid for `cols.end` rows and columns, rows `ldc` apart, and nothing else accesses those two areas.
pub(super) unsafe fn mirror(level: Level, c: *mut f32, ldc: usize, cols: Range<usize>) {
    const BLOCK: usize = 16;
    for j0 in cols.clone().step_by(BLOCK) {
        let width = BLOCK.min(cols.end - j0);
        for i0 in (0..j0).step_by(BLOCK) {
            let height = BLOCK.min(j0 - i0);
            // SAFETY: the block (i0.., j0..) lies strictly above the diagonal, so the two do not overlap.
            unsafe { transpose(level, c.add(i0 * ldc + j0), ldc, (height, width), c.add(j0 * ldc + i0)) };
        }
        for j in j0..j0 + width {
            for i in j0..j {
                // SAFETY: i, j < cols.end.
                unsafe { *c.add(j * ldc + i) = *c.add(i * ldc + j) };
            }
        }
    }
}

/// `dst[j * stride + i] = src[i * stride + j]` for (rows, cols).
///
/// # Safety
/// Both areas are valid and disjoint, and the level is available.
unsafe fn transpose(level: Level, src: *const f32, stride: usize, (rows, cols): (usize, usize), dst: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::transpose(src, stride, (rows, cols), dst, stride),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::transpose(src, stride, (rows, cols), dst, stride),
            _ => {
                for i in 0..rows {
                    for j in 0..cols {
                        *dst.add(j * stride + i) = *src.add(i * stride + j);
                    }
                }
            }
        }
    }
}
