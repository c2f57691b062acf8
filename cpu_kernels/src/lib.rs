//! The CPU side of nanotern's op table, and the home of its `unsafe` code.
//!
//! Each op has a file named like its shader, with the same `Args` and the same buffers in the same order. The scalar
//! function *defines* the op; SIMD levels agree with it. No result depends on how the work was split into parts.

pub mod adamw;
pub mod add;
pub mod attention;
pub mod attention_backward_delta;
pub mod attention_backward_kv;
pub mod attention_backward_q;
pub mod attention_cached;
#[cfg(not(target_arch = "wasm32"))]
pub mod bench;
pub mod call;
pub mod clip;
pub mod copy;
pub mod cross_entropy;
pub mod dense_gemv;
pub mod embedding;
pub mod embedding_backward;
pub mod fill;
pub mod gather_rows;
pub mod gemm;
pub mod kv_append;
mod lanes;
pub mod level;
pub mod lion;
pub mod mark_seen;
pub mod math;
pub mod matmul;
pub mod matmul_add;
mod mhc;
pub mod mhc_collapse;
pub mod mhc_expand;
pub mod mhc_post;
pub mod mhc_post_backward;
pub mod mhc_post_backward_coef;
pub mod mhc_pre;
pub mod mhc_pre_backward;
pub mod mhc_pre_backward_coef;
pub mod mhc_weights;
pub mod mhc_weights_backward;
pub mod muon_momentum;
pub mod muon_normalize;
pub mod muon_update;
pub mod packed;
mod panels;
pub mod pool;
pub mod program;
pub mod quantize;
pub mod quantize_rows;
pub mod rms_norm;
pub mod rms_norm_backward;
pub mod rms_norm_backward_weight;
pub mod rope;
pub mod round_f16;
pub mod sample;
mod scratch;
mod split;
pub mod sum;
pub mod sum_rows;
pub mod sum_squares;
pub mod swiglu;
pub mod swiglu_backward;
pub mod ternary_gemm;
pub mod ternary_gemv;
pub mod ternary_matmul;
pub mod ternary_matmul_backward_input;
pub mod ternary_matmul_backward_weight;
pub mod ternary_quantize;

pub use call::{ArgWords, Args, Buf, Call, Kernel};
pub use level::Level;
pub use packed::{Packed, Packing};
pub use pool::Pool;
pub use program::{CpuProgram, Step};
