//! Packing: any operand becomes panels of `stride` values a step of k, dequantised on the way.

use super::Mat;
use crate::simd::isa::{Isa, prefetch_line};
use crate::{Level, at_level};
use half::f16;
use std::ops::Range;

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
    if let Mat::Dense { data, row_stride, col_stride } = *src {
        let (row, col) = if transpose { (col_stride, row_stride) } else { (row_stride, col_stride) };
        if col == 1 && level != Level::Scalar {
            // SAFETY: `src` holds (ks, js).
            let first = unsafe { data.as_ptr().add(ks.start * row + js.start) };
            let to = Panel { k: ks.len(), width: js.len(), stride, dst: dst.as_mut_ptr() };
            return at_level!(level,
                [copy_rows::<4, 8>, copy_rows::<6, 16>, copy_rows::<12, 32>, copy_rows::<6, 16>],
                (first: *const f32, row: usize, to: Panel));
        }
    }
    for (j, dst) in js.clone().step_by(stride).zip(dst.chunks_exact_mut(ks.len() * stride)) {
        let js = j..js.end.min(j + stride);
        let to = Panel { k: ks.len(), width: js.len(), stride, dst: dst.as_mut_ptr() };
        let at = (ks.start, j);
        let done = at_level!(level, [nothing, panel::<Simd128>, panel::<Avx2>, panel::<Avx512>, panel::<Neon>, panel::<Neon>],
            (src: &Mat, transpose: bool, at: (usize, usize), to: Panel) -> bool);
        if done {
            continue;
        }
        for (p, row) in ks.clone().zip(dst.chunks_exact_mut(stride)) {
            for (j, d) in js.clone().zip(row) {
                *d = if transpose { src.get(j, p) } else { src.get(p, j) };
            }
        }
    }
}

/// Multiplies each row of panels of `stride` columns by the step of its k.
pub(super) fn scale(panels: &mut [f32], stride: usize, steps: &[f32]) {
    for panel in panels.chunks_exact_mut(stride * steps.len().max(1)) {
        for (row, step) in panel.chunks_exact_mut(stride).zip(steps) {
            row.iter_mut().for_each(|v| *v *= step);
        }
    }
}

/// Rounds to 11 significant bits.
pub(super) fn shorten(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = short(*v));
}

/// `x` rounded to 11 significant bits, half to even; a number that is not finite stays as it is.
fn short(x: f32) -> f32 {
    const EXPONENT: u32 = 0x7f80_0000;
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff;
    f32::from_bits(if bits & EXPONENT == EXPONENT { bits } else { nearest })
}

/// The destination of one packing call: one panel, or several `k * stride` apart if `width` exceeds `stride`. Both the
/// source and the destination hold that many elements.
#[derive(Clone, Copy)]
struct Panel {
    k: usize,
    width: usize,
    stride: usize,
    dst: *mut f32,
}

fn nothing(_: &Mat, _: bool, _: (usize, usize), _: Panel) -> bool {
    false
}

/// Packs one panel, of at most `stride` columns; false where there is no fast way.
#[inline(always)]
fn panel<S: Isa>(src: &Mat, transpose: bool, (p, j): (usize, usize), to: Panel) -> bool {
    // SAFETY: the source holds the elements of the panel.
    unsafe {
        match *src {
            Mat::Dense { data, row_stride, col_stride } => {
                let (k_stride, stride) = if transpose { (col_stride, row_stride) } else { (row_stride, col_stride) };
                if k_stride != 1 {
                    return false;
                }
                let src = data.as_ptr().add(p + j * stride);
                transposed::<S>((src, stride), (to.width, to.k), (to.dst, to.stride));
            }
            Mat::Half { data, row_stride: 1, col_stride } if !transpose => {
                half_columns::<S>(data.as_ptr().add(p + j * col_stride), col_stride, to);
            }
            Mat::Ternary { codes, scales, group, cols } if !transpose && j % to.stride == 0 => {
                let row_bytes = crate::matrix::packed_row_bytes(cols);
                let codes = codes.as_ptr().add(p * row_bytes + j / 128 * 32 + j % 32);
                let scales = scales.as_ptr().add(p * (cols / group) + j / group);
                ternary::<S>((codes, row_bytes), (j % 128 / 32 * 2) as i32, (scales, cols / group), to);
            }
            Mat::Int8 { codes, steps, cols } if !transpose => {
                int8::<S>((codes.as_ptr().add(p * cols + j), cols), steps.as_ptr().add(p), to);
            }
            _ => return false,
        }
    }
    true
}

/// Copies rows, `row` apart, to panels of MR or NR columns.
#[inline(always)]
fn copy_rows<const MR: usize, const NR: usize>(src: *const f32, row: usize, to: Panel) {
    /// Rows of k that are copied to all panels before the next ones, so that wide reads meet few cache sets.
    const ROWS: usize = 8;
    for p0 in (0..to.k).step_by(ROWS) {
        for p in p0 + ROWS..to.k.min(p0 + 2 * ROWS) {
            for j in (0..to.width).step_by(16) {
                prefetch_line(src.wrapping_add(p * row + j).cast());
            }
        }
        for j in (0..to.width).step_by(to.stride) {
            let width = (to.width - j).min(to.stride);
            for p in p0..to.k.min(p0 + ROWS) {
                // SAFETY: both rows hold `width` values.
                unsafe {
                    let (src, dst) = (src.add(p * row + j), to.dst.add(j * to.k + p * to.stride));
                    if width == NR {
                        src.copy_to_nonoverlapping(dst, NR);
                    } else if width == MR {
                        src.copy_to_nonoverlapping(dst, MR);
                    } else {
                        (0..width).for_each(|j| *dst.add(j) = *src.add(j));
                    }
                }
            }
        }
    }
}

/// `dst[j * dst_stride + i] = src[i * src_stride + j]` for `rows` x `cols` elements. Both areas are valid and disjoint.
#[inline(always)]
fn transposed<S: Isa>(
    (src, src_stride): (*const f32, usize),
    (rows, cols): (usize, usize),
    (dst, dst_stride): (*mut f32, usize),
) {
    for i in (0..rows).step_by(S::WIDTH) {
        let height = (rows - i).min(S::WIDTH);
        for j in (0..cols).step_by(8) {
            let width = (cols - j).min(8);
            // SAFETY: the block lies inside both areas.
            unsafe {
                let (src, dst) = (src.add(i * src_stride + j), dst.add(j * dst_stride + i));
                if width < 8 || 2 * height < S::WIDTH {
                    plain((src, src_stride), (height, width), (dst, dst_stride));
                    continue;
                }
                // Rows behind the last one repeat it.
                let columns = S::columns(|r| src.add(r.min(height - 1) * src_stride).cast());
                for (c, column) in columns.into_iter().enumerate() {
                    let dst = dst.add(c * dst_stride);
                    if height == S::WIDTH {
                        S::store_i(column, dst.cast());
                    } else {
                        S::store_some(S::as_float(column), dst, 0..height as isize);
                    }
                }
            }
        }
    }
}

/// Widens columns, `stride` apart, whose values are contiguous.
#[inline(always)]
fn half_columns<S: Isa>(src: *const f16, stride: usize, to: Panel) {
    /// Values of a column that are widened before they are transposed.
    const RUN: usize = 64;
    let mut wide = [[0.0f32; RUN]; 16];
    for i in (0..to.width).step_by(S::WIDTH) {
        let height = (to.width - i).min(S::WIDTH);
        for p in (0..to.k).step_by(RUN) {
            let run = (to.k - p).min(RUN);
            // SAFETY: both areas hold the elements, and a register has at most 16 lanes.
            unsafe {
                for (c, wide) in wide.iter_mut().enumerate().take(height) {
                    widen::<S>(src.add((i + c) * stride + p), run, wide.as_mut_ptr());
                }
                let dst = to.dst.add(p * to.stride + i);
                transposed::<S>((wide.as_ptr().cast(), RUN), (height, run), (dst, to.stride));
            }
        }
    }
}

/// Widens `n` values. Both areas hold as many.
#[inline(always)]
unsafe fn widen<S: Isa>(src: *const f16, n: usize, dst: *mut f32) {
    let whole = n / S::WIDTH * S::WIDTH;
    // SAFETY: passed on.
    unsafe {
        (0..whole).step_by(S::WIDTH).for_each(|i| S::store(S::load_half(src.add(i).cast()), dst.add(i)));
        (whole..n).for_each(|i| *dst.add(i) = (*src.add(i)).to_f32());
    }
}

/// [`transposed`], element by element.
#[inline(always)]
fn plain((src, src_stride): (*const f32, usize), (rows, cols): (usize, usize), (dst, dst_stride): (*mut f32, usize)) {
    for i in 0..rows {
        for j in 0..cols {
            // SAFETY: both areas are valid.
            unsafe { *dst.add(j * dst_stride + i) = *src.add(i * src_stride + j) };
        }
    }
}

/// Unpacks a panel of ternary weights. `codes` points at the first row's bytes of the panel's columns, whose codes begin
/// at bit `shift`; one scale covers the panel's row. Rows of either are their stride apart.
#[inline(always)]
fn ternary<S: Isa>(codes: (*const u8, usize), shift: i32, scales: (*const f32, usize), to: Panel) {
    for p in 0..to.k {
        // SAFETY: every row has a scale, and bytes for `stride` columns.
        unsafe {
            let scale = S::splat(*scales.0.add(p * scales.1));
            for j in (0..to.stride).step_by(S::WIDTH) {
                let bytes = S::load_u8(codes.0.add(p * codes.1 + j));
                S::store(S::ternary(S::shr(bytes, shift), scale), to.dst.add(p * to.stride + j));
            }
        }
    }
}

/// Unpacks `width` columns of int8 rows, their stride apart, each row times its step.
#[inline(always)]
fn int8<S: Isa>(codes: (*const i8, usize), steps: *const f32, to: Panel) {
    for p in 0..to.k {
        // SAFETY: both rows hold `width` values.
        unsafe {
            let (src, dst, step) = (codes.0.add(p * codes.1), to.dst.add(p * to.stride), *steps.add(p));
            let whole = to.width / S::WIDTH * S::WIDTH;
            for j in (0..whole).step_by(S::WIDTH) {
                S::store(S::mul(S::to_float(S::load_i8(src.add(j))), S::splat(step)), dst.add(j));
            }
            for j in whole..to.width {
                *dst.add(j) = f32::from(*src.add(j)) * step;
            }
        }
    }
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
            let shape = (BLOCK.min(j0 - i0), width);
            // SAFETY: both blocks lie in C.
            let (from, to) = unsafe { ((c.cast_const().add(i0 * ldc + j0), ldc), (c.add(j0 * ldc + i0), ldc)) };
            // The block (i0.., j0..) lies strictly above the diagonal, so the two do not overlap.
            at_level!(level, [plain, transposed::<Simd128>, transposed::<Avx2>, transposed::<Avx512>, transposed::<Neon>, transposed::<Neon>],
                (from: (*const f32, usize), shape: (usize, usize), to: (*mut f32, usize)));
        }
        for j in j0..j0 + width {
            for i in j0..j {
                // SAFETY: i, j < cols.end.
                unsafe { *c.add(j * ldc + i) = *c.add(i * ldc + j) };
            }
        }
    }
}
