pub mod data;
pub mod error;
pub mod rng;
pub mod tokenizer;

pub use error::{Error, Result};
