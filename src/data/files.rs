//! Reading text and writing files whole: a file is either as it was or as it should be, never half.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk and renames it to `path`. Missing parent
/// folders are made.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// [`write_atomic`] of what `fill` writes.
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
        let _ = fs::remove_file(&temporary); // the first error is the one to report
    }
    written
}

/// Reads a file as UTF-8; the error names the byte offset of what is not.
pub(crate) fn read_utf8(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let byte = e.as_bytes()[at];
        Error::invalid(path, format!("is not UTF-8: byte 0x{byte:02x} at offset {at}"))
    })
}

/// Reads a text file, or every regular file under a folder in the order of their paths, hidden ones left out, with
/// `separator` between files.
pub(crate) fn read_text(path: &Path, separator: &str) -> Result<String> {
    if !fs::metadata(path).map_err(|e| Error::io(path, e))?.is_dir() {
        let text = read_utf8(path)?;
        return if text.is_empty() { Err(Error::invalid(path, "the file is empty")) } else { Ok(text) };
    }
    let mut files = Vec::new();
    walk(path, &mut files)?;
    let texts = files.iter().map(|file| read_utf8(file)).collect::<Result<Vec<_>>>()?;
    if texts.iter().all(String::is_empty) {
        return Err(Error::invalid(path, "the folder holds no text (hidden files are left out)"));
    }
    Ok(texts.join(separator))
}

/// Appends the regular files under `folder`, sorted by name at each level. Links to folders are not followed, so the
/// walk ends.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = entries.map_err(|e| Error::io(folder, e))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.iter().filter(|e| !e.file_name().as_encoded_bytes().starts_with(b".")) {
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() || kind.is_symlink() && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_without_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.txt", "bee"), ("a/z.txt", "zed"), (".hidden", "no"), ("a/.git/x", "no")] {
            write_atomic(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        assert_eq!(read_text(dir.path(), "|").unwrap(), "zed|bee");
        assert_eq!(read_text(&dir.path().join("b.txt"), "|").unwrap(), "bee");
    }

    #[test]
    fn bad_text_is_named_with_its_offset() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(&dir.path().join("bad.txt"), b"good \xff").unwrap();
        let message = read_text(dir.path(), "").unwrap_err().to_string();
        assert!(message.contains("bad.txt") && message.contains("0xff at offset 5"), "{message}");
        write_atomic(&dir.path().join("cut.txt"), "é".as_bytes().split_at(1).0).unwrap();
        assert!(read_text(&dir.path().join("cut.txt"), "").unwrap_err().to_string().contains("offset 0"));
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_text(dir.path(), "").unwrap_err().to_string().contains("no text"));
        assert!(read_text(&dir.path().join("missing"), "").unwrap_err().to_string().contains("missing"));
        write_atomic(&dir.path().join("empty"), b"").unwrap();
        assert!(read_text(&dir.path().join("empty"), "").unwrap_err().to_string().contains("empty"));
    }

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
