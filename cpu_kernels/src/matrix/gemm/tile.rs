//! The register tile: MR rows of NV registers, one fused multiply-add a register and step of k.

use super::Tile;
use crate::simd::isa::{Isa, unroll};

/// Computes a tile of `1 <= t.rows <= MR` and `t.cols <= NV * S::WIDTH`.
#[inline(always)]
pub(super) fn tile<S: Isa, const MR: usize, const NV: usize>(t: &Tile) {
    // One function for each number of rows, so that the accumulators are registers.
    macro_rules! rows {
        ($($r:literal)*) => {
            match (t.rows, t.a_direct) {
                $(($r, true) if $r <= MR => rows::<S, MR, NV, $r, true>(t),
                ($r, false) if $r <= MR => rows::<S, MR, NV, $r, false>(t),)*
                _ => unreachable!("{} rows", t.rows),
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// A tile with `t.rows == R` and `t.a_direct == DIRECT`.
#[inline(always)]
fn rows<S: Isa, const MR: usize, const NV: usize, const R: usize, const DIRECT: bool>(t: &Tile) {
    let width = NV * S::WIDTH;
    let mut acc = [[S::splat(0.0); NV]; R];
    for p in 0..t.k {
        let mut b = [S::splat(0.0); NV];
        // SAFETY: row p of the panel of B.
        unroll!(v < NV of 4 { b[v] = unsafe { S::load(t.b.add(p * width + v * S::WIDTH)) } });
        unroll!(r < R of 12 {
            let at = if DIRECT { r * t.a_stride + p } else { p * MR + r };
            // SAFETY: element (r, p) of A.
            let a = S::splat(unsafe { *t.a.add(at) });
            unroll!(v < NV of 4 { acc[r][v] = S::mul_add(a, b[v], acc[r][v]) })
        });
    }
    let whole = t.cols == width && t.skip + (R as isize) <= 1;
    let (alpha, beta) = (S::splat(t.alpha), S::splat(t.beta));
    unroll!(r < R of 12, v < NV of 4 {
        let first = v * S::WIDTH;
        // The address of a register may lie behind C's end where none of its lanes is in the tile.
        let c = t.c.wrapping_add(r * t.ldc + first);
        let lanes = t.skip + r as isize - first as isize..t.cols as isize - first as isize;
        let mut out = S::mul(alpha, acc[r][v]);
        // SAFETY: these lanes lie in C.
        unsafe {
            // C is not read where beta is 0.
            if t.beta != 0.0 {
                let old = if whole { S::load(c) } else { S::load_some(c, lanes.clone()) };
                out = S::mul_add(alpha, acc[r][v], S::mul(beta, old));
            }
            if whole { S::store(out, c) } else { S::store_some(out, c, lanes) }
        }
    });
}
