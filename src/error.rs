//! The one error type. A message names the thing that is wrong and the limit it broke; it is written for the person
//! at the terminal, who sees nothing else.

use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked for something that cannot be: a bad flag, key or value.
    #[error("{0}")]
    Usage(String),
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file was read, but what it says is wrong.
    #[error("{path}: {what}", path = .path.display())]
    Invalid { path: PathBuf, what: String },
    /// A model is not what its description says, or cannot do what was asked of it.
    #[error("{0}")]
    Model(String),
    /// The device refused, ran out of memory, or is not there.
    #[error("{0}")]
    Device(String),
    /// The device has not as much memory as was asked for.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device has gone, with all that was on it.
    #[error("{0}")]
    DeviceLost(String),
    /// A checkpoint could not be saved; the earlier ones are untouched and the message names the newest.
    #[error("{0}")]
    Checkpoint(String),
    /// Training cannot go on.
    #[error("{0}")]
    Training(String),
}

impl Error {
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), source }
    }

    pub fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Error::Invalid { path: path.to_path_buf(), what: what.into() }
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Error::Usage(what.into())
    }
}
