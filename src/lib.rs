//! Trains 1.58-bit (ternary) language models on any GPU or none, exports them, serves them.
//!
//! # Floors
//!
//! Each module imports only from those beneath it; `cargo xtask floors` checks that.
//!
//! ```text
//! cli               the program, over the library
//! serve             the OpenAI API and a chat page
//! eval, bench       how good, how fast
//! train, infer      a step, a run; sequences side by side
//! formats           GGUF, .mhc
//! checkpoint        the folders that a run saves
//! data              where tokens come from
//! tokenizer         from text to tokens and back
//! model             from a configuration to a graph
//! backend           cpu, wgpu, cuda
//! ops               one table of ops
//! graph             nodes and tensors, gradients, the plan of memory
//! rng, files        random numbers; files written as a whole
//! error             the one error type
//! ```

pub mod backend;
#[cfg(feature = "native")]
pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod error;
#[cfg(feature = "native")]
pub mod eval;
#[cfg(feature = "native")]
pub mod files;
pub mod formats;
pub mod graph;
pub mod infer;
pub mod model;
pub mod ops;
pub mod rng;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};
