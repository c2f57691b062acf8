//! Kernels of [`Layout::Rows16`](super::Layout): multiply-adds of bytes, an output a 32-bit lane.
//!
//! Codes 0, 1, 2 are the unsigned factor; the offset of 1 is taken off by starting each group from minus the sum of its
//! activations. A code is masked but not always shifted down: bits 2-3 make four times the product, and so on, and the
//! sums of each place are shifted when a group is complete, which is exact.

use super::{Job, PackedTernary};
use crate::matrix::ternary_gemm::negated_sums;
use crate::simd::isa::{Isa, prefetch, unroll};
use crate::{Level, at_level};

/// Rows of activations that share one pass over the weights.
pub(super) const ROWS: usize = 4;

/// Bytes of working memory a row: one sum a group.
pub(super) fn prepared_bytes(w: &PackedTernary) -> usize {
    4 * w.dim() / w.group()
}

/// Computes the tiles of a job of at most [`ROWS`] rows.
pub(super) fn run(level: Level, job: &Job<'_>, prepared: &mut [u8]) {
    at_level!(level, [
        super::none, tiles::<Simd128, 2, 1, 1, 1>,
        tiles::<Avx2, 2, 2, 1, 1>, tiles::<Avx512, 1, 1, 1, 2>, tiles::<Neon, 4, 2, 1, 1>, tiles::<Dotprod, 4, 4, 2, 1>,
    ], (job: &Job<'_>, prepared: &mut [u8]));
}

/// One row takes H1 registers of a tile at once and U sets of sums for each, enough of them to hide the latency of a product;
/// two rows take H2 registers, and more rows H4.
#[inline(always)]
fn tiles<S: Isa, const H1: usize, const H2: usize, const H4: usize, const U: usize>(
    job: &Job<'_>,
    prepared: &mut [u8],
) {
    let sums: &mut [i32] = bytemuck::cast_slice_mut(prepared);
    negated_sums(job.x, job.w.group(), sums);
    for tile in job.tiles.clone() {
        match job.steps.len() {
            1 => rows::<S, 1, H1, U>(job, sums, tile),
            2 => rows::<S, 2, H2, 1>(job, sums, tile),
            3 => rows::<S, 3, H4, 1>(job, sums, tile),
            _ => rows::<S, 4, H4, 1>(job, sums, tile),
        }
    }
}

/// R rows of a tile.
#[inline(always)]
fn rows<S: Isa, const R: usize, const H: usize, const U: usize>(job: &Job<'_>, sums: &[i32], tile: usize) {
    let (dim, group) = (job.w.dim(), job.w.group());
    let (groups, scales) = (dim / group, job.w.scales());
    let (x, sums) = (job.x.as_ptr(), sums.as_ptr());
    // Codes of place p lie under mask p % PLACES, after p / PLACES shifts by PLACES codes.
    let masks = [0x0303_0303u32, 0x0c0c_0c0c, 0x3030_3030, 0xc0c0_c0c0].map(|mask| S::splat_i(mask.cast_signed()));
    for first in (0..16).step_by(H * S::WIDTH) {
        let codes = job.w.codes()[tile * dim * 4..][..dim * 4].as_ptr().wrapping_add(4 * first);
        let mut acc = [[S::splat(0.0); H]; R];
        for g in 0..groups {
            let mut total = [[S::start(0); H]; R];
            // SAFETY: the row has a sum for each group.
            unroll!(r < R of 4 { total[r] = [S::start(unsafe { *sums.add(r * groups + g) }); H] });
            let (mut k, end) = (g * group, (g + 1) * group);
            while k < end {
                let mut sum = [[[[S::start(0); 4]; H]; U]; R];
                // 16 inputs are 4 / PLACES products a place, and the largest weight is 2 * 4^(PLACES - 1).
                let stop = end.min(k + S::CARRY);
                while k < stop {
                    unroll!(u < U of 2 {
                        let k = k + 16 * u;
                        prefetch(codes.wrapping_add(4 * k));
                        unroll!(h < H of 4 {
                            // SAFETY: inputs k..k + 16 of a register of outputs.
                            let q = unsafe { S::load_i(codes.add(4 * (k + h * S::WIDTH))) };
                            unroll!(p < 4 of 4 {
                                let shifted = S::shr(q, (p / S::PLACES * S::PLACES * 2) as i32);
                                let w = S::and(shifted, masks[p % S::PLACES]);
                                unroll!(r < R of 4 {
                                    // SAFETY: inputs k + 4 p..+ 4 of row r.
                                    let x = unsafe { x.add(r * dim + k + 4 * p).cast::<i32>().read_unaligned() };
                                    S::multiply(&mut sum[r][u][h][p % S::PLACES], w, S::splat_i(x));
                                })
                            })
                        })
                    });
                    k += 16 * U;
                }
                unroll!(r < R of 4, h < H of 4 {
                    unroll!(p < 4 of 4 {
                        if p < S::PLACES {
                            let mut place = sum[r][0][h][p];
                            unroll!(u < U of 2 { if u > 0 { S::add_shifted(&mut place, sum[r][u][h][p], 0) } });
                            S::add_shifted(&mut total[r][h], place, 2 * p as i32)
                        }
                    });
                    S::carry(&mut total[r][h])
                });
            }
            unroll!(h < H of 4 {
                // SAFETY: a tile has 16 scales a group.
                let scale = unsafe { scales.load::<S>((tile * groups + g) * 16 + first + h * S::WIDTH) };
                unroll!(r < R of 4 {
                    acc[r][h] = S::add(acc[r][h], S::mul(scale, S::to_float(S::total(total[r][h]))))
                })
            });
        }
        unroll!(r < R of 4, h < H of 4 {
            let out = S::mul(S::splat(job.steps[r]), acc[r][h]);
            // SAFETY: outputs of this tile are this job's.
            unsafe { job.store::<S>(r, 16 * tile + first + h * S::WIDTH, out) }
        });
    }
}
