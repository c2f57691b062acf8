//! The register tile as plain loops: the definition of a block of the product.

use super::Tile;

pub(super) const MR: usize = 4;
pub(super) const NR: usize = 8;

/// Computes a tile of `1 <= t.rows <= MR` and `t.cols <= NR`.
pub(super) fn tile(t: &Tile) {
    match t.rows {
        1 => rows::<1>(t),
        2 => rows::<2>(t),
        3 => rows::<3>(t),
        _ => rows::<4>(t),
    }
}

/// A tile with `t.rows == R`.
fn rows<const R: usize>(t: &Tile) {
    let acc = sums::<R>(t);
    for (r, acc) in acc.iter().enumerate() {
        let first = (t.skip + r as isize).max(0) as usize;
        for (j, acc) in acc.iter().enumerate().take(t.cols).skip(first) {
            // SAFETY: (r, j) lies in the tile of C.
            let c = unsafe { &mut *t.c.add(r * t.ldc + j) };
            *c = if t.beta == 0.0 { t.alpha * acc } else { t.alpha * acc + t.beta * *c };
        }
    }
}

/// The sums over p < k. A function of its own, so that the sums are vectors in registers: nothing here indexes them at
/// run time.
#[inline(never)]
fn sums<const R: usize>(t: &Tile) -> [[f32; NR]; R] {
    let mut acc = [[0.0f32; NR]; R];
    let (row, step) = if t.a_direct { (t.a_stride, 1) } else { (1, t.a_stride) };
    for p in 0..t.k {
        // SAFETY: row p of the panel of B.
        let b = unsafe { *t.b.add(p * NR).cast::<[f32; NR]>() };
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: element (r, p) of A.
            let a = unsafe { *t.a.add(r * row + p * step) };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    acc
}
