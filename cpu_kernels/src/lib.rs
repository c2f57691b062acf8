//! The CPU side of nanotern's op table, and the home of its `unsafe` code.

pub mod gemm;
pub mod level;
pub mod quantize;
mod scratch;
mod split;
pub mod ternary_gemm;

pub use level::Level;
