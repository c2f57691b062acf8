//! The register tile as plain loops: the definition of a block of the product.

use super::Tile;

pub(super) const MR: usize = 4;
pub(super) const NR: usize = 32;

/// # Safety
/// The pointers of `t` are valid for its shape, and `t.cols <= NR`.
pub(super) unsafe fn tile(t: &Tile) {
    for r in 0..t.rows {
        let mut acc = [0.0f32; NR];
        for p in 0..t.k {
            let at = if t.a_direct { r * t.a_stride + p } else { p * t.a_stride + r };
            // SAFETY: element (r, p) of A and row p of the packed panel exist.
            let (a, b) = unsafe { (*t.a.add(at), &*t.b.add(p * NR).cast::<[f32; NR]>()) };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
        let first = (t.skip + r as isize).max(0) as usize;
        for (j, acc) in acc.iter().enumerate().take(t.cols).skip(first) {
            // SAFETY: (r, j) lies in the tile of C.
            let c = unsafe { &mut *t.c.add(r * t.ldc + j) };
            *c = if t.beta == 0.0 { t.alpha * acc } else { t.alpha * acc + t.beta * *c };
        }
    }
}
