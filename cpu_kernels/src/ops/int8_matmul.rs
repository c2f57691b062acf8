//! Quantised rows times an int8 matrix, the 8-bit head of a model:
//! y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (int32 sum of code * xq).
//!
//! The group sums are exact and the float sum multiplies, then adds, never fused, as in `ternary_matmul`: every level gives the
//! same bits for any number of rows. A group is 32 inputs, as in GGUF's Q8_0.

use crate::matrix::int8_panels::Int8Panels;
use crate::matrix::ternary_gemv::Layouts;
use crate::{ArgWords, Args, Buf, Call, Level, Packed, Packing, args};

args! {
    pub struct Int8MatmulArgs { rows: u32, outs: u32, dim: u32, x_row: u32 }
}

/// Inputs that share a scale.
pub const GROUP: usize = 32;

/// Levels with integer products read the weights in panels.
pub static PACKING: Packing = Packing { constants: &[2, 3], wanted: |level, _| Int8Panels::has(level), make };

/// # Safety
/// See [`Packing::make`].
unsafe fn make(_: Level, _: &Layouts, words: &ArgWords, bufs: &[Buf]) -> Packed {
    let a = Int8MatmulArgs::from_words(words);
    // SAFETY: unwritten by this function's contract.
    let (codes, scales) = unsafe { (bufs[2].read(), bufs[3].read()) };
    Packed::Int8(Int8Panels::new(codes, scales, a.outs as usize, a.dim as usize))
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn int8_matmul(call: &Call<'_>) {
    let a: Int8MatmulArgs = call.args();
    let [xq, step, codes, scales, y] = call.bufs else { panic!("int8_matmul takes five buffers") };
    let [rows, outs, dim, start] = [a.rows, a.outs, a.dim, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (xq, steps, codes, scales) =
        unsafe { (xq.read::<i8>(), step.read::<f32>(), codes.read::<i8>(), scales.read::<f32>()) };
    let (xq, steps) = (&xq[start * dim..][..rows * dim], &steps[start..][..rows]);
    assert!(
        dim.is_multiple_of(GROUP) && rows * outs <= y.len::<f32>(),
        "int8_matmul: ({rows}, {outs}) of {dim} inputs"
    );
    if let Some(Packed::Int8(panels)) = call.packed {
        // SAFETY: in bounds as just checked; parts compute disjoint columns.
        return unsafe { panels.run_part(call.level, (xq, steps), y.ptr(), call.part, call.parts) };
    }
    let groups = dim / GROUP;
    let mine = call.share(outs);
    for first in mine.clone().step_by(4) {
        // The last output fills up what is missing to four.
        let four = [0, 1, 2, 3].map(|i| (first + i).min(mine.end - 1));
        let weights = four.map(|o| (&codes[o * dim..][..dim], &scales[o * groups..][..groups]));
        for (r, (x, step)) in xq.chunks_exact(dim).zip(steps).enumerate() {
            for (o, sum) in four.into_iter().zip(dots(call.level, weights, x)) {
                // SAFETY: this part's columns alone.
                unsafe { *y.ptr::<f32>().add(r * outs + o) = step * sum };
            }
        }
    }
}

/// Four outputs of one row, without the row's step, from the codes and scales of each.
fn dots(level: Level, weights: [(&[i8], &[f32]); 4], x: &[i8]) -> [f32; 4] {
    match level {
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Level::Simd128 => simd128::dots(weights, x),
        _ => weights.map(|(codes, scales)| dot(codes, scales, x)),
    }
}

fn dot(codes: &[i8], scales: &[f32], x: &[i8]) -> f32 {
    let mut acc = 0.0;
    for ((w, x), scale) in codes.chunks_exact(GROUP).zip(x.chunks_exact(GROUP)).zip(scales) {
        let sum: i32 = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        acc += scale * sum as f32;
    }
    acc
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use super::GROUP;
    use std::arch::wasm32::*;

    /// Eight codes in a register.
    const WIDE: usize = 8;

    pub(super) fn dots(weights: [(&[i8], &[f32]); 4], x: &[i8]) -> [f32; 4] {
        let mut acc = f32x4_splat(0.0);
        for (g, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let x = extended(x);
            let sums = weights.map(|(codes, _)| {
                let products = extended(&codes.as_chunks().0[g]);
                let products = [0, 1, 2, 3].map(|i| i32x4_dot_i16x8(products[i], x[i]));
                i32x4_add(i32x4_add(products[0], products[1]), i32x4_add(products[2], products[3]))
            });
            let scale = weights.map(|(_, scales)| scales[g]);
            let scale = f32x4(scale[0], scale[1], scale[2], scale[3]);
            acc = f32x4_add(acc, f32x4_mul(scale, f32x4_convert_i32x4(sum_each(sums))));
        }
        [
            f32x4_extract_lane::<0>(acc),
            f32x4_extract_lane::<1>(acc),
            f32x4_extract_lane::<2>(acc),
            f32x4_extract_lane::<3>(acc),
        ]
    }

    /// The codes of a group as words.
    #[inline(always)]
    fn extended(codes: &[i8; GROUP]) -> [v128; GROUP / WIDE] {
        // SAFETY: each load reads eight of the 32 codes.
        [0, 1, 2, 3].map(|i| unsafe { i16x8_load_extend_i8x8(codes.as_ptr().add(WIDE * i)) })
    }

    /// The sum of each register's lanes.
    #[inline(always)]
    fn sum_each([a, b, c, d]: [v128; 4]) -> v128 {
        let half = |a, b| i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
        let (ab, cd) = (half(a, b), half(c, d));
        i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd))
    }
}
