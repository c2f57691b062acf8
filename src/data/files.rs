//! Reads text from a file, or from all files of a folder.

use crate::error::{Error, Result};
use crate::files::read_utf8;
use std::fs;
use std::path::{Path, PathBuf};

/// Reads a text file, or all regular files under a folder in the order of their paths, with `separator` between files.
/// Hidden files and folders are skipped.
pub(crate) fn read_text(path: &Path, separator: &str) -> Result<String> {
    if !fs::metadata(path).map_err(|e| Error::io(path, e))?.is_dir() {
        let text = read_utf8(path)?;
        return if text.is_empty() { Err(Error::invalid(path, "the file is empty")) } else { Ok(text) };
    }
    let mut files = Vec::new();
    walk(path, &mut files)?;
    let texts = files.iter().map(|file| read_utf8(file)).collect::<Result<Vec<_>>>()?;
    if texts.iter().all(String::is_empty) {
        return Err(Error::invalid(path, "the folder contains no text (hidden files are skipped)"));
    }
    Ok(texts.join(separator))
}

/// Appends the regular files under `folder`, sorted by name at each level. Links to folders are not followed, so no cycle
/// is possible.
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
    use crate::files::write_atomic;

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
}
