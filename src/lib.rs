//! Trains 1.58-bit (ternary) language models on any GPU or none, exports them, serves them.
//!
//! Floors, each naming only those beneath it: the command line and the server over [`train`] and [`infer`], over [`model`],
//! [`data`] and [`formats`], over [`graph`], over [`ops`] (one table), over [`backend`]. The README draws the picture.

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
