//! Finds the files of a corpus, and tells what each is by its name.

use super::report::Named;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of documents.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub form: Form,
    pub packing: Packing,
    /// Bytes on the disk.
    pub size: u64,
}

/// How documents lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The file is a document.
    Text,
    /// Each line is a JSON object with a document in one of its fields.
    Json,
    /// Each row has a document in one of its columns.
    Parquet,
}

/// How the bytes of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Zstd,
    Gzip,
}

impl Source {
    fn new(path: PathBuf, size: u64) -> Source {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, packing) = match name.rsplit_once('.') {
            Some((inner, "zst")) => (inner, Packing::Zstd),
            Some((inner, "gz")) => (inner, Packing::Gzip),
            _ => (name.as_str(), Packing::None),
        };
        let form = match name.rsplit_once('.') {
            Some((_, "jsonl" | "ndjson" | "json")) => Form::Json,
            Some((_, "parquet")) if packing == Packing::None => Form::Parquet,
            _ => Form::Text,
        };
        Source { path, form, packing, size }
    }
}

/// The files of a corpus in the order of their names, and what was left out of a folder.
#[derive(Debug)]
pub(super) struct Found {
    pub sources: Vec<Source>,
    pub left_out: Named,
    /// Whether the corpus is a folder, in which a file that cannot be read is left out.
    pub folder: bool,
}

/// Finds the file at `path`, or all files of the folder there. Links are followed; nothing is read twice, so no cycle is
/// possible. Hidden files and folders are left out.
pub(super) fn find(path: &Path) -> Result<Found> {
    let meta = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_file() {
        let sources = vec![Source::new(path.to_path_buf(), meta.len())];
        return Ok(Found { sources, left_out: Named::default(), folder: false });
    }
    if !meta.is_dir() {
        let what = "is neither a file nor a folder; a corpus is read several times, so it cannot be a pipe";
        return Err(Error::invalid(path, what));
    }
    let found = Found { sources: vec![], left_out: Named::default(), folder: true };
    let mut walk = Walk { seen: HashSet::new(), inodes: HashSet::new(), found };
    walk.folder(path)?;
    Ok(walk.found)
}

struct Walk {
    /// Canonical paths of the files and folders read so far.
    seen: HashSet<PathBuf>,
    /// Of files with several names.
    inodes: HashSet<(u64, u64)>,
    found: Found,
}

impl Walk {
    fn folder(&mut self, folder: &Path) -> Result<()> {
        let canonical = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
        if !self.seen.insert(canonical.clone()) {
            self.found.left_out.add(format!("{}: a folder that is read under another name", folder.display()));
            return Ok(());
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.map_err(|e| Error::io(folder, e))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if let Err(why) = self.entry(&entry, &path, &canonical) {
                self.found.left_out.add(why.to_string());
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &fs::DirEntry, path: &Path, folder: &Path) -> Result<()> {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            return Err(Error::invalid(path, "hidden"));
        }
        let meta = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if meta.is_dir() {
            return self.folder(path);
        }
        if !meta.is_file() {
            return Err(Error::invalid(path, "neither a file nor a folder"));
        }
        let link = entry.file_type().map_err(|e| Error::io(path, e))?.is_symlink();
        let canonical = if link { path.canonicalize().map_err(|e| Error::io(path, e))? } else { folder.join(name) };
        if !self.seen.insert(canonical) || inode(&meta).is_some_and(|inode| !self.inodes.insert(inode)) {
            return Err(Error::invalid(path, "a file that is read under another name"));
        }
        if meta.len() == 0 {
            return Err(Error::invalid(path, "empty"));
        }
        self.found.sources.push(Source::new(path.to_path_buf(), meta.len()));
        Ok(())
    }
}

/// What all names of a file have in common, if it has several.
fn inode(meta: &fs::Metadata) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (meta.nlink() > 1).then(|| (meta.dev(), meta.ino()))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomic;

    fn names(found: &Found, dir: &Path) -> Vec<String> {
        let name = |s: &Source| s.path.strip_prefix(dir).unwrap().display().to_string();
        found.sources.iter().map(name).collect()
    }

    #[test]
    fn folders_are_read_in_order_and_what_is_left_out_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.txt", "bee"), ("a/z.txt", "zed"), (".hidden", "no"), ("a/.git/x", "no"), ("c", "")] {
            write_atomic(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        let found = find(dir.path()).unwrap();
        assert_eq!(names(&found, dir.path()), ["a/z.txt", "b.txt"]);
        let left = found.left_out.first.join("\n");
        assert_eq!(found.left_out.count, 3, "{left}");
        assert!(
            left.contains(".hidden: hidden") && left.contains(".git: hidden") && left.contains("c: empty"),
            "{left}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_once() {
        use std::os::unix::fs::symlink;
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_atomic(&other.path().join("far.txt"), b"far").unwrap();
        write_atomic(&dir.path().join("m/near.txt"), b"near").unwrap();
        let link = |to: &Path, name: &str| symlink(to, dir.path().join(name)).unwrap();
        link(other.path(), "a");
        link(other.path(), "again");
        link(dir.path(), "m/up"); // a cycle
        link(&dir.path().join("m/near.txt"), "z.txt");
        link(Path::new("nowhere"), "broken");
        fs::hard_link(dir.path().join("m/near.txt"), dir.path().join("y.txt")).unwrap();
        let found = find(dir.path()).unwrap();
        assert_eq!(names(&found, dir.path()), ["a/far.txt", "m/near.txt"]);
        let left = found.left_out.first.join("\n");
        assert_eq!(found.left_out.count, 5, "{left}");
        assert!(["again", "m/up", "y.txt", "z.txt", "broken"].iter().all(|name| left.contains(name)), "{left}");
    }

    #[test]
    fn names_tell_the_form() {
        let of = |name: &str| {
            let source = Source::new(name.into(), 1);
            (source.form, source.packing)
        };
        assert_eq!(of("a.txt"), (Form::Text, Packing::None));
        assert_eq!(of("json"), (Form::Text, Packing::None));
        assert_eq!(of("a.JSONL.zst"), (Form::Json, Packing::Zstd));
        assert_eq!(of("a.ndjson.gz"), (Form::Json, Packing::Gzip));
        assert_eq!(of("a.txt.gz"), (Form::Text, Packing::Gzip));
        assert_eq!(of("a.parquet"), (Form::Parquet, Packing::None));
    }
}
