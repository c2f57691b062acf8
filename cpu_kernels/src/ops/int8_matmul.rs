//! Quantised rows times an int8 matrix, the 8-bit head of a model:
//! y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (int32 sum of code * xq).
//!
//! The group sums are exact and the float sum multiplies, then adds, never fused, as in `ternary_matmul`: every level gives the
//! same bits for any number of rows. A group is 32 inputs, as in GGUF's Q8_0.

pub use crate::matrix::int8_panels::GROUP;
use crate::matrix::int8_panels::Int8Panels;
use crate::matrix::ternary_gemv::Layouts;
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Args, Buf, Call, Level, args};

args! {
    pub struct Int8MatmulArgs { rows: u32, outs: u32, dim: u32, x_row: u32 }
}

/// Levels with integer products read the weights in panels.
pub(crate) static PACKING: Packing =
    Packing { constants: &[2, 3], wanted: |level, _| Int8Panels::has(level), shape, make };

/// (outs, dim)
fn shape(words: &ArgWords) -> [u32; 3] {
    let a = Int8MatmulArgs::from_words(words);
    [a.outs, a.dim, 0]
}

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
    assert!(dim.is_multiple_of(GROUP), "int8_matmul: {dim} inputs");
    let y = y.array::<f32>(0, &[a.rows, a.outs]);
    if let Some(Packed::Int8(panels)) = call.packed {
        assert!(panels.shape() == (outs, dim), "int8_matmul: ({outs}, {dim}) of a packed {:?}", panels.shape());
        // SAFETY: y holds the result of this shape; parts compute disjoint columns.
        return unsafe { panels.run_part(call.level, (xq, steps), y, call.part, call.parts) };
    }
    let groups = dim / GROUP;
    let mine = call.share(outs);
    for o in mine {
        let (codes, scales) = (&codes[o * dim..][..dim], &scales[o * groups..][..groups]);
        for (r, (x, step)) in xq.chunks_exact(dim).zip(steps).enumerate() {
            let sum = dot(codes, scales, x);
            // SAFETY: this part's columns alone.
            unsafe { *y.add(r * outs + o) = step * sum };
        }
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
