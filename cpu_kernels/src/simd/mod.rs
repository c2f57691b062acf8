//! SIMD levels, vectors, and the arithmetic that gives the same bits at every level.

pub(crate) mod lanes;
pub(crate) mod level;
pub mod math;
