//! The CPU side of nanotern's op table, and the home of its `unsafe` code.
//!
//! Each op has a file named like its shader, with the same `Args` and the same buffers in the same order. The scalar
//! function *defines* the op; SIMD levels agree with it. No result depends on how the work was split into parts.
//!
//! # Floors
//!
//! Each module imports only from those beneath it.
//!
//! ```text
//! ops      one file for each op
//! run      calls, programs, threads
//! matrix   matrix products, and the forms of their operands
//! simd     levels and vectors
//! ```

#![warn(missing_docs)]
#![allow(rustdoc::broken_intra_doc_links, reason = "formulas index with brackets")]
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128")),
    allow(dead_code, unused_imports, unused_macros, reason = "only SIMD levels use what is generic over instructions")
)]

pub mod matrix;
pub mod ops;
pub mod run;
pub mod simd;

pub use run::call::{ArgWords, Args, Buf, Call, Kernel};
pub use run::pool::Pool;
pub use run::program::{Bind, CpuProgram, Step};
pub use simd::level::Level;
pub(crate) use {run::call::args, simd::level::at_level};
