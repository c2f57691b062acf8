//! SIMD levels, vector instructions, and the arithmetic that gives the same bits at every level.

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm;
pub(crate) mod isa;
pub(crate) mod level;
pub mod math;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod wasm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
