//! Matrix products, and the layouts and quantised forms of their operands.

#[cfg(not(target_arch = "wasm32"))]
pub mod bench;
pub mod dense_gemv;
pub mod gemm;
pub(crate) mod int8_panels;
pub(crate) mod panels;
pub mod quantize;
pub mod ternary_gemm;
pub mod ternary_gemv;
