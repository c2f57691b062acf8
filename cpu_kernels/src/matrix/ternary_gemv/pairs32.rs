//! Kernels of [`Layout::Pairs32`](super::Layout): two weights are four bits, which look their sum up.
//!
//! For each pair of activations (a, b) a table of 16 holds `(c0 - 1) a + (c1 - 1) b` at `c0 + 4 c1`, as
//! `low + 128 high`: low in 0..128, so that two of them add up in a byte, high in -2..=1, so that 64 of them do. Bytes
//! become words by adding the words that they lie in and, apart, the upper bytes of these.

use super::{Job, PackedTernary};
use crate::simd::isa::{Lookup, prefetch, unroll};
use crate::{Level, at_level};

/// Inputs whose pairs may be summed in bytes (high) and words (low).
const NARROW: usize = 128;

/// Bytes of codes and of tables for each four inputs.
const CODES: usize = 32;
const TABLES: usize = 64;

/// Bytes of working memory: a pair's table is 16 low bytes, then 16 high ones.
pub(super) fn prepared_bytes(w: &PackedTernary) -> usize {
    w.dim() / 4 * TABLES
}

/// Computes the tiles of a job of one row. Levels without wider tables use the instructions of the level below.
pub(super) fn run(level: Level, job: &Job<'_>, prepared: &mut [u8]) {
    let level = if level == Level::Avx512 { Level::Avx2 } else { level };
    at_level!(level,
        [super::none, tiles::<Simd128, 2>, tiles::<Avx2, 1>, super::none, tiles::<Neon, 2>, tiles::<Neon, 2>],
        (job: &Job<'_>, prepared: &mut [u8]));
}

/// The codes of four inputs are N registers.
#[inline(always)]
fn tiles<S: Lookup, const N: usize>(job: &Job<'_>, prepared: &mut [u8]) {
    for ([a, b], to) in job.x.as_chunks().0.iter().zip(prepared.as_chunks_mut::<{ TABLES / 2 }>().0) {
        // SAFETY: 32 bytes.
        unsafe { S::pair_table(*a, *b, to.as_mut_ptr()) };
    }
    let (dim, group) = (job.w.dim(), job.w.group());
    let (groups, scales) = (dim / group, job.w.scales());
    for tile in job.tiles.clone() {
        let codes = job.w.codes()[tile * dim * 8..][..dim * 8].as_ptr();
        // Registers of outputs, in order: of the even bytes, then of the odd ones; of N registers; of two halves.
        let mut acc = [[[S::splat(0.0); 2]; N]; 2];
        for g in 0..groups {
            let mut sum = [[[S::splat_i(0); 2]; N]; 2];
            let end = (g + 1) * group;
            for k in (g * group..end).step_by(NARROW) {
                // SAFETY: k..end are inputs, of which there are codes and tables.
                let narrow = unsafe { narrow_sums::<S, N>(codes, prepared.as_ptr(), k, end.min(k + NARROW)) };
                for odd in 0..2 {
                    for n in 0..N {
                        let [low, high] = S::widen(narrow[odd][n]);
                        sum[odd][n] = [S::add_i(sum[odd][n][0], low), S::add_i(sum[odd][n][1], high)];
                    }
                }
            }
            for (v, (acc, sum)) in
                acc.as_flattened_mut().as_flattened_mut().iter_mut().zip(sum.as_flattened().as_flattened()).enumerate()
            {
                // SAFETY: a tile has 32 scales a group.
                let scale = unsafe { scales.load::<S>((tile * groups + g) * 32 + v * S::WIDTH) };
                *acc = S::add(*acc, S::mul(scale, S::to_float(*sum)));
            }
        }
        for (v, acc) in acc.as_flattened().as_flattened().iter().enumerate() {
            // SAFETY: outputs 32 tile.. are this job's.
            unsafe { job.store::<S>(0, 32 * tile + v * S::WIDTH, S::mul(S::splat(job.steps[0]), *acc)) };
        }
    }
}

/// Sums over inputs k..end, at most [`NARROW`] of them, as i16: of the even bytes of N registers of codes, then of the odd ones.
///
/// # Safety
/// There are codes and tables for the inputs.
#[inline(always)]
unsafe fn narrow_sums<S: Lookup, const N: usize>(
    codes: *const u8,
    tables: *const u8,
    k: usize,
    end: usize,
) -> [[S::I; N]; 2] {
    let nibble = S::splat_i(0x0f0f_0f0f);
    let [mut low, mut low_odd, mut high] = [[S::splat_i(0); N]; 3];
    for i in k / 4..end / 4 {
        prefetch(codes.wrapping_add(CODES * i));
        let table = tables.wrapping_add(TABLES * i);
        // SAFETY: the two tables of inputs 4 i..4 i + 4.
        let [low0, high0, low1, high1] =
            unsafe { [S::table(table), S::table(table.add(16)), S::table(table.add(32)), S::table(table.add(48))] };
        unroll!(n < N of 2 {
            // SAFETY: these inputs of a tile.
            let q = unsafe { S::load_i(codes.add(CODES * i + 4 * S::WIDTH * n)) };
            let (first, second) = (S::and(q, nibble), S::upper_nibbles(q));
            let lows = S::add_u8(S::lookup(low0, first), S::lookup(low1, second));
            let highs = S::add_u8(S::lookup(high0, first), S::lookup(high1, second));
            low[n] = S::add_u16(low[n], lows);
            low_odd[n] = S::add_u16(low_odd[n], S::shr_16(lows, 8));
            high[n] = S::add_u8(high[n], highs);
        });
    }
    let mut sums = [[S::splat_i(0); N]; 2];
    for n in 0..N {
        let low_even = S::sub_u16(low[n], S::shl_16(low_odd[n], 8));
        let [high_even, high_odd] = [S::sar_16(S::shl_16(high[n], 8), 8), S::sar_16(high[n], 8)];
        sums[0][n] = S::add_u16(low_even, S::shl_16(high_even, 7));
        sums[1][n] = S::add_u16(low_odd[n], S::shl_16(high_odd, 7));
    }
    sums
}
