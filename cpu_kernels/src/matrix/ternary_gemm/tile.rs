//! The register tile: MR rows of NV registers of outputs, four inputs a product of bytes.

use super::Tile;
use crate::matrix::packed_row_bytes;
use crate::simd::isa::{Isa, unroll};

/// Computes a tile of `1 <= t.rows <= MR` and `t.cols <= NV * S::WIDTH`.
#[inline(always)]
pub(super) fn tile<S: Isa, const MR: usize, const NV: usize>(t: &Tile) {
    // One function for each number of rows, so that the sums are registers.
    macro_rules! rows {
        ($($r:literal)*) => {
            match t.rows {
                $($r if $r <= MR => rows::<S, NV, $r>(t),)*
                rows => unreachable!("{rows} rows"),
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8)
}

/// A tile with `t.rows == R`.
#[inline(always)]
fn rows<S: Isa, const NV: usize, const R: usize>(t: &Tile) {
    let (groups, width) = (t.dim / t.group, NV * S::WIDTH);
    let mut acc = [[S::splat(0.0); NV]; R];
    for g in 0..groups {
        let mut sum = [[S::start(0); NV]; R];
        // SAFETY: the row has a sum for each group.
        unroll!(r < R of 8 { sum[r] = [S::start(unsafe { *t.sums.add(r * groups + g) }); NV] });
        let (mut k, end) = (g * t.group, (g + 1) * t.group);
        while k < end {
            // A weight is at most 2, and a product takes four inputs.
            let stop = end.min(k + S::CARRY / 2 * 4);
            // Two steps a turn: short loops are predicted to the end.
            while k < stop {
                unroll!(step < 2 of 2 {
                    let k = k + 4 * step;
                    let mut w = [S::splat_i(0); NV];
                    // SAFETY: inputs k..k + 4 of NV registers of outputs.
                    unroll!(v < NV of 4 { w[v] = unsafe { S::load_i(t.weights.add(k * width + 4 * v * S::WIDTH)) } });
                    unroll!(r < R of 8 {
                        // SAFETY: k + 4 <= dim.
                        let x = S::splat_i(unsafe { t.x.add(r * t.dim + k).cast::<i32>().read_unaligned() });
                        unroll!(v < NV of 4 { S::multiply(&mut sum[r][v], w[v], x) })
                    })
                });
                k += 8;
            }
            unroll!(r < R of 8, v < NV of 4 { S::carry(&mut sum[r][v]) });
        }
        unroll!(v < NV of 4 {
            // SAFETY: a scale for each output a group.
            let scale = unsafe { S::load(t.scales.add(g * width + v * S::WIDTH)) };
            unroll!(r < R of 8 { acc[r][v] = S::add(acc[r][v], S::mul(scale, S::to_float(S::total(sum[r][v])))) })
        });
    }
    unroll!(r < R of 8 {
        // SAFETY: one step a row.
        let step = S::splat(unsafe { *t.steps.add(r) });
        unroll!(v < NV of 4 {
            // The address of a register may lie behind y's end where none of its lanes is in the tile.
            let (y, first) = (t.y.wrapping_add(r * t.ldy + v * S::WIDTH), v * S::WIDTH);
            let out = S::mul(step, acc[r][v]);
            // SAFETY: stored lanes lie in y.
            unsafe {
                if t.cols == width {
                    S::store(out, y);
                } else {
                    S::store_some(out, y, 0..t.cols as isize - first as isize);
                }
            }
        })
    });
}

/// Decodes `cols` rows of `dim` weights to (dim / 4, NV * S::WIDTH, 4) bytes at `to`. What lies behind `cols` is unspecified.
#[inline(always)]
pub(super) fn unpack<S: Isa, const NV: usize>(codes: &[u8], cols: usize, dim: usize, to: *mut u8) {
    let row_bytes = packed_row_bytes(dim);
    let three = S::splat_i(0x0303_0303);
    for v in 0..cols.div_ceil(S::WIDTH) {
        for run in 0..row_bytes / 32 {
            // Outputs behind the last one repeat it.
            let row = |i: usize| codes[(S::WIDTH * v + i).min(cols - 1) * row_bytes + 32 * run..][..32].as_ptr();
            // SAFETY: 32 bytes each, measured by the slices.
            let words = unsafe { S::columns(row) };
            for plane in 0..4.min((dim - 128 * run) / 32) {
                unroll!(i < 8 of 8 {
                    let k = 128 * run + 32 * plane + 4 * i;
                    let bytes = S::and(S::shr(words[i], 2 * plane as i32), three);
                    // SAFETY: k + 4 <= dim, and there is room for that many inputs of all outputs.
                    unsafe { S::store_i(bytes, to.add(k * NV * S::WIDTH + 4 * v * S::WIDTH)) }
                });
            }
        }
    }
}
