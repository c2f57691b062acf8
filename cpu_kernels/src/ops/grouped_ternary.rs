//! Products of rows that are sorted by expert with the ternary matrix of each expert: for the rows r of expert e, from starts[e]
//! up to starts[e + 1], y[r][o] = step[r] * sum over groups g, in order, of scale[e][o][g] * (integer sum of code * xq), with the
//! bits of `ternary_matmul`. A row costs its expert's matrix: those of experts without rows are not read.

use super::experts::ranges;
use crate::matrix::packed_row_bytes;
use crate::matrix::ternary_gemm::TernaryGemm;
use crate::matrix::ternary_gemv::{Layouts, PackedTernary, TernaryGemv};
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Args, Buf, Call, Level, args};

args! {
    pub struct GroupedTernaryArgs { rows: u32, experts: u32, outs: u32, dim: u32, group: u32 }
}

/// Rows an expert, in the mean, up to which packed weights are read faster than canonical ones are decoded.
const FEW_ROWS: u32 = 4;

/// Few rows read constant weights in the layout that is fastest here, as those of `ternary_matmul`.
pub(crate) static PACKING: Packing = Packing {
    constants: &[3, 4],
    wanted: |level, words| match level {
        Level::Scalar => false,
        Level::Simd128 => true,
        _ => {
            let a = GroupedTernaryArgs::from_words(words);
            a.rows <= a.experts.saturating_mul(FEW_ROWS)
        }
    },
    shape,
    make,
};

/// (all outs, dim, group)
fn shape(words: &ArgWords) -> [u32; 3] {
    let a = GroupedTernaryArgs::from_words(words);
    [a.experts.wrapping_mul(a.outs), a.dim, a.group]
}

/// # Safety
/// See [`Packing::make`].
unsafe fn make(_: Level, layouts: &Layouts, words: &ArgWords, bufs: &[Buf]) -> Packed {
    let a = GroupedTernaryArgs::from_words(words);
    let [experts, outs, dim, group] = [a.experts, a.outs, a.dim, a.group].map(|n| n as usize);
    // SAFETY: unwritten by this function's contract.
    let (codes, scales) = unsafe { (bufs[3].read(), bufs[4].read()) };
    let (bytes, groups) = (outs * packed_row_bytes(dim), outs * (dim / group));
    // Before anything is made as large as the arguments say.
    let there =
        bytes > 0 && bytes.saturating_mul(experts) <= codes.len() && groups.saturating_mul(experts) <= scales.len();
    assert!(there, "codes: {} for {experts} of {bytes} bytes, scales: {}", codes.len(), scales.len());
    let layout = layouts.choose(outs, dim, group);
    let expert = |e: usize| {
        let (codes, scales) = (&codes[e * bytes..][..bytes], &scales[e * groups..][..groups]);
        PackedTernary::new(layout, codes, scales, outs, dim, group)
    };
    Packed::Experts((0..experts).map(expert).collect())
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn grouped_ternary(call: &Call<'_>) {
    let a: GroupedTernaryArgs = call.args();
    let [xq, step, starts, codes, scales, y] = call.bufs else { panic!("grouped_ternary takes six buffers") };
    let [rows, experts, outs, dim, group] = [a.rows, a.experts, a.outs, a.dim, a.group].map(|n| n as usize);
    // SAFETY: inputs are not written during the op, by this function's contract.
    let (xq, steps, starts) = unsafe { (xq.read::<i8>(), step.read::<f32>(), starts.read::<u32>()) };
    // SAFETY: as above.
    let (codes, scales) = unsafe { (codes.read::<u8>(), scales.read::<f32>()) };
    let y = y.array::<f32>(0, &[a.rows, a.outs]);
    let (bytes, groups) = (outs * packed_row_bytes(dim), outs * (dim / group));
    for (e, own) in ranges(starts, experts, rows) {
        let (rows, xq, steps) = (own.len(), &xq[own.start * dim..], &steps[own.start..]);
        // SAFETY: the expert's rows lie in y.
        let y = unsafe { y.add(own.start * outs) };
        if let Some(Packed::Experts(experts)) = call.packed {
            let weights = &experts[e];
            let packed = (weights.outs(), weights.dim(), weights.group());
            assert!(packed == (outs, dim, group), "grouped_ternary: ({outs}, {dim}) by {group} of a packed {packed:?}");
            let product = TernaryGemv { weights, rows, xq, steps };
            // SAFETY: y holds the result of this shape; experts have different rows, and parts compute disjoint outputs.
            unsafe { product.run_part(call.level, y, outs, call.part, call.parts) };
            continue;
        }
        let (codes, scales) = (&codes[e * bytes..], &scales[e * groups..]);
        let product = TernaryGemm { rows, outs, dim, group, xq, steps, codes, scales };
        // SAFETY: y holds the result of this shape; experts have different rows, and parts compute disjoint tiles.
        unsafe { product.run_part(call.level, y, outs, call.part, call.parts) };
    }
}
