//! Matrix products, the layouts and quantised forms of their operands, and how products are divided among threads.

#[cfg(not(target_arch = "wasm32"))]
pub mod bench;
pub mod dense_gemv;
pub mod gemm;
pub(crate) mod int8_panels;
pub(crate) mod panels;
pub mod quantize;
pub(crate) mod scratch;
pub(crate) mod split;
pub mod ternary_gemm;
pub mod ternary_gemv;

/// Bytes of a row of `cols` ternary weights in canonical packing: runs of 128 columns are 32 bytes, and byte m of a run holds
/// columns m, m + 32, m + 64, m + 96 in bits 0-1, 2-3, 4-5, 6-7. A code is the weight + 1.
pub const fn packed_row_bytes(cols: usize) -> usize {
    cols.div_ceil(128) * 32
}

/// Whether `len` values hold `rows` rows of `width`, `stride` apart: any sizes at all, so that what follows cannot overflow.
pub(crate) fn fits(len: usize, rows: usize, width: usize, stride: usize) -> bool {
    let end = || (rows - 1).checked_mul(stride)?.checked_add(width);
    rows == 0 || width == 0 || end().is_some_and(|end| end <= len)
}
