//! Trains 1.58-bit (ternary) language models on any GPU or none, exports them, serves them.
//!
//! Floors, each naming only those beneath it: surfaces ([`main`](../nanotern/index.html)) over `train`, over `model`, over
//! [`graph`], over [`ops`] (one table), over [`backend`]. The README draws the picture.

pub mod backend;
pub mod error;
pub mod graph;
pub mod ops;

pub use error::{Error, Result};
