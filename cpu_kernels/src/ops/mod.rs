//! One file for each op, named like its shader: its `Args`, and the kernel that works on one part of the call.
//!
//! The scalar function *defines* the op; SIMD levels agree with it.
#![allow(rustdoc::broken_intra_doc_links, reason = "formulas have indices in brackets")]

pub mod adamw;
pub mod add;
pub mod attention;
pub mod attention_backward_delta;
pub mod attention_backward_kv;
pub mod attention_backward_q;
pub mod attention_cached;
pub mod clip;
pub mod copy;
pub mod cross_entropy;
mod documents;
pub mod embedding;
pub mod embedding_backward;
pub mod embedding_int8;
pub mod fill;
pub mod gather_rows;
pub mod int8_matmul;
pub mod kv_append;
pub mod lion;
pub mod mark_seen;
pub mod matmul;
pub mod matmul_add;
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
pub mod quantize_rows;
pub mod rms_norm;
pub mod rms_norm_backward;
pub mod rms_norm_backward_weight;
pub mod rope;
pub mod round_f16;
pub mod sample;
mod streams;
pub mod sum;
pub mod sum_rows;
pub mod sum_squares;
pub mod swiglu;
pub mod swiglu_backward;
pub mod ternary_matmul;
pub mod ternary_matmul_backward_input;
pub mod ternary_matmul_backward_weight;
pub mod ternary_quantize;
