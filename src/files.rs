//! Reads and writes whole files. Writes are atomic: the file has either its old contents or all of the new ones.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk and renames it to `path`. Creates missing
/// parent folders.
///
/// # Errors
/// When a step fails; the file then keeps its old contents.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// [`write_atomic`], with contents that `fill` writes.
///
/// # Errors
/// As [`write_atomic`], and those of `fill`.
pub(crate) fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::invalid(path, "is not the name of a file"))?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let write = || {
        let mut out = BufWriter::new(File::create(&temporary)?);
        fill(&mut out)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    let written = write()
        .map_err(|e| Error::io(&temporary, e))
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| Error::io(path, e)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is reported
    }
    written
}

/// Reads a whole UTF-8 file.
///
/// # Errors
/// When it cannot be read or is not UTF-8; the error names the first invalid byte and its offset.
pub(crate) fn read_utf8(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let byte = e.as_bytes()[at];
        Error::invalid(path, format!("is not UTF-8: byte 0x{byte:02x} at offset {at}"))
    })
}

/// Maps a file into memory, read-only.
///
/// # Errors
/// When it cannot be mapped or is empty, which no format here allows.
pub fn map(path: &Path) -> Result<memmap2::Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
        return Err(Error::invalid(path, "the file is empty"));
    }
    #[expect(unsafe_code, reason = "a memory map cannot be made without it")]
    // SAFETY: the map is read-only. Model files are replaced by rename, so a mapped one keeps its contents. A user who
    // truncates one in place ends the process.
    let map = unsafe { memmap2::Mmap::map(&file) };
    map.map_err(|e| Error::io(path, e))
}

/// Flushes the entries of a directory to the disk. Does nothing on Windows, which cannot open directories and keeps renames
/// in order by its journal.
///
/// # Errors
/// When the directory cannot be opened or flushed.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(dir, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write_atomic(&dir.path().join("x/y"), b"").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
