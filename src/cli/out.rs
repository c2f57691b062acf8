//! Standard output. What cannot be written there is an error like any other; `print!` would panic.

use nanotern::{Error, Result};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

/// What messages call it.
const NAME: &str = "standard output";

/// Names standard output in an error.
pub fn written(result: std::io::Result<()>) -> Result<()> {
    result.map_err(|e| Error::io(NAME.as_ref(), e))
}

/// Writes text, which the reader has at once.
pub fn write(text: Arguments) -> Result<()> {
    let mut out = stdout().lock();
    written(out.write_fmt(text).and_then(|()| out.flush()))
}

/// Writes a line.
macro_rules! outln {
    ($($part:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($part)*))) };
}
pub(super) use outln;

/// Whether an error tells that the reader of standard output has gone, as in `nanotern inspect DIR | head`.
pub fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Io { path, source } if path == Path::new(NAME) && source.kind() == ErrorKind::BrokenPipe)
}
