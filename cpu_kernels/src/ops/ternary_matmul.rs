//! Quantised linear layer: y[r][o] = step[r] * sum over groups g, in order, of scale[o][g] * (integer sum of code * xq).
//!
//! The float sum starts at 0 and multiplies, then adds, never fused: the result is the same bit for bit at every level and for
//! any number of rows. Rows `x_row..x_row + rows` of xq are read; y starts at row 0.

use crate::matrix::packed_row_bytes;
use crate::matrix::ternary_gemm::TernaryGemm;
use crate::matrix::ternary_gemv::{Layouts, PackedTernary, TernaryGemv};
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Args, Buf, Call, Level, args};

args! {
    pub struct TernaryMatmulArgs { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }
}

/// Rows up to which packed weights are read faster than canonical ones are decoded.
const FEW_ROWS: u32 = 4;

/// Few rows read constant weights in the layout that is fastest here, and any number where products of many rows have no
/// kernel of their own.
pub(crate) static PACKING: Packing = Packing {
    constants: &[2, 3],
    wanted: |level, words| match level {
        Level::Scalar => false,
        Level::Simd128 => true,
        _ => TernaryMatmulArgs::from_words(words).rows <= FEW_ROWS,
    },
    shape,
    make,
};

/// (outs, dim, group)
fn shape(words: &ArgWords) -> [u32; 3] {
    let a = TernaryMatmulArgs::from_words(words);
    [a.outs, a.dim, a.group]
}

/// # Safety
/// See [`Packing::make`].
unsafe fn make(_: Level, layouts: &Layouts, words: &ArgWords, bufs: &[Buf]) -> Packed {
    let a = TernaryMatmulArgs::from_words(words);
    let [outs, dim, group] = [a.outs, a.dim, a.group].map(|n| n as usize);
    // SAFETY: unwritten by this function's contract.
    let (codes, scales) = unsafe { (bufs[2].read(), bufs[3].read()) };
    let (codes, scales) = (&codes[..outs * packed_row_bytes(dim)], &scales[..outs * (dim / group)]);
    Packed::Ternary(PackedTernary::new(layouts.choose(outs, dim, group), codes, scales, outs, dim, group))
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn ternary_matmul(call: &Call<'_>) {
    let a: TernaryMatmulArgs = call.args();
    let [xq, step, codes, scales, y] = call.bufs else { panic!("ternary_matmul takes five buffers") };
    let [rows, outs, dim, group, start] = [a.rows, a.outs, a.dim, a.group, a.x_row].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (xq, steps, codes, scales) =
        unsafe { (xq.read::<i8>(), step.read::<f32>(), codes.read::<u8>(), scales.read::<f32>()) };
    let (xq, steps) = (&xq[start * dim..], &steps[start..]);
    let y = y.array::<f32>(0, &[a.rows, a.outs]);
    if let Some(Packed::Ternary(weights)) = call.packed {
        let packed = (weights.outs(), weights.dim(), weights.group());
        assert!(packed == (outs, dim, group), "ternary_matmul: ({outs}, {dim}) by {group} of a packed {packed:?}");
        let product = TernaryGemv { weights, rows, xq, steps };
        // SAFETY: y holds the result of this shape; parts compute disjoint outputs.
        return unsafe { product.run_part(call.level, y, outs, call.part, call.parts) };
    }
    let product = TernaryGemm { rows, outs, dim, group, xq, steps, codes, scales };
    // SAFETY: y holds the result of this shape; parts compute disjoint tiles.
    unsafe { product.run_part(call.level, y, outs, call.part, call.parts) }
}
