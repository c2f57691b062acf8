//! The crate's error type. A message names the thing that is wrong and the limit it exceeds, and makes sense without any
//! other output: it is all that a user at a terminal sees.

use std::path::{Path, PathBuf};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user gave an invalid flag, key or value.
    #[error("{0}")]
    Usage(String),
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file was read, but its contents are invalid.
    #[error("{path}: {what}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A model does not match its description, or does not support what it was asked for.
    #[error("{0}")]
    Model(String),
    /// The device does not exist, or it rejected a call.
    #[error("{0}")]
    Device(String),
    /// The device has too little memory.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device was lost, with all its buffers.
    #[error("{0}")]
    DeviceLost(String),
    /// A checkpoint could not be saved. Earlier ones are untouched; the message names the newest.
    #[error("{0}")]
    Checkpoint(String),
    /// A weight, or a value of the state of an optimizer, is not a finite number. The message names it.
    #[error("{0}")]
    NotFinite(String),
    /// Work was told to stop before it was done.
    #[error("stopped by a signal")]
    Stopped,
    /// Training cannot start or continue.
    #[error("{0}")]
    Training(String),
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), source }
    }

    /// An [`Error::Invalid`] for `path`.
    pub fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Error::Invalid { path: path.to_path_buf(), what: what.into() }
    }

    /// An [`Error::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Error::Usage(what.into())
    }
}

/// Bytes in MiB, for messages. The caller rounds: down for a limit, up for what exceeds it.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
/// What `work` returns, or what it said when it panicked. Such a panic is not printed. It is for calls into libraries that panic
/// at some files.
#[cfg(feature = "native")]
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
    static HOOK: std::sync::Once = std::sync::Once::new();
    thread_local! { static CAUGHT: Cell<bool> = const { Cell::new(false) } }
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                print(panic)
            }
        }));
    });
    let before = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(before);
    result.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        said.unwrap_or("a panic").to_string()
    })
}
