pub mod error;
pub mod train;

pub use error::{Error, Result};
