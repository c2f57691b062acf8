//! The door through which files are opened, and whole files read and written. What is opened is a regular file: a pipe that
//! nobody writes to, or a device, would be read for ever. Writes are atomic: the file has either its old contents or all of
//! the new ones.

use crate::error::{Error, Result};
use crate::memory;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Whether a name may be a link to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It may: a user gave it.
    Follow,
    /// It may not: this program gave it, within a run or a checkpoint. Such a folder may come from a stranger, and a link in
    /// it lead anywhere.
    Refuse,
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened, [`Error::Invalid`] if it is a folder, device, pipe, socket or a link that is refused.
pub fn open(path: &Path, links: Links) -> Result<File> {
    open_by(path, links, OpenOptions::new().read(true))
}

/// Opens a regular file of this program's own name, to write into it in place.
///
/// # Errors
/// As [`open`] with [`Links::Refuse`].
pub(crate) fn open_within(path: &Path, options: &mut OpenOptions) -> Result<File> {
    open_by(path, Links::Refuse, options)
}

fn open_by(path: &Path, links: Links, options: &mut OpenOptions) -> Result<File> {
    // Before, since opening a device may do something, and after, since another file may have come in between.
    match kind_at(path, links) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        kind => regular(path, kind?, "read")?,
    }
    #[cfg(unix)]
    {
        let no_link = if links == Links::Refuse { libc::O_NOFOLLOW } else { 0 };
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | no_link;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    let opened = |file: File| file.metadata().map(|meta| (file, meta.file_type()));
    let (file, kind) = options.open(path).and_then(opened).map_err(|e| Error::io(path, e))?;
    regular(path, kind, "read").map(|()| file)
}

/// What is at a path.
pub(crate) fn kind_at(path: &Path, links: Links) -> Result<FileType> {
    let meta = if links == Links::Follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    meta.map(|meta| meta.file_type()).map_err(|e| Error::io(path, e))
}

/// Checks that a file of this program's own name is a regular one.
///
/// # Errors
/// [`Error::Invalid`] says what else it is.
pub(crate) fn check_within(path: &Path) -> Result<()> {
    regular(path, kind_at(path, Links::Refuse)?, "read")
}

fn regular(path: &Path, of: FileType, verb: &str) -> Result<()> {
    if of.is_file() {
        return Ok(());
    }
    Err(Error::invalid(path, format!("is a {}: only a regular file can be {verb}", kind(of))))
}

/// Whether a file has other names (hard links), under which a change of its contents would appear too.
pub(crate) fn has_other_names(file: &File) -> bool {
    #[cfg(unix)]
    let names = file.metadata().map_or(0, |meta| std::os::unix::fs::MetadataExt::nlink(&meta));
    #[cfg(not(unix))]
    let names = 1;
    names > 1
}

/// Whether the file at a path of this program is the one that is open.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let of = |meta: Metadata| {
        #[cfg(unix)]
        let number = [std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta)];
        // Windows moves no folder in which a file is open.
        #[cfg(not(unix))]
        let number = meta.file_type();
        number
    };
    let same = || Ok(of(fs::symlink_metadata(path)?) == of(file.metadata()?));
    same().map_err(|e| Error::io(path, e))
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and when it is larger or does not fit in memory.
pub fn read(path: &Path, links: Links, limit: u64) -> Result<Vec<u8>> {
    read_all(path, &open(path, links)?, limit)
}

/// [`read`] of a file that is open.
pub(crate) fn read_all(path: &Path, file: &File, limit: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::io(path, e);
    let too_large = |size: u64| Error::invalid(path, format!("has {size} bytes: at most {limit} are read"));
    let size = file.metadata().map_err(failed)?.len();
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = room(size).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// An empty vector with memory for `size` bytes. A system may promise more than there is, so many are compared with what is
/// free.
fn room(size: u64) -> io::Result<Vec<u8>> {
    const MANY: usize = 16 << 20;
    let mut bytes = Vec::new();
    let size = usize::try_from(size).map_err(|_| ErrorKind::OutOfMemory)?;
    if size > MANY {
        let enough = memory::check(size, memory::free(), "use a smaller file");
        enough.map_err(|e| io::Error::new(ErrorKind::OutOfMemory, e.to_string()))?;
    }
    bytes.try_reserve_exact(size).map_err(|_| ErrorKind::OutOfMemory)?;
    Ok(bytes)
}

/// Reads `size` bytes of a file from `at` on.
///
/// # Errors
/// When the file ends before, or they do not fit in memory.
pub fn read_part(file: &File, at: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = room(size)?;
    bytes.resize(size as usize, 0);
    read_at(file, &mut bytes, at).map(|()| bytes)
}

/// Fills `to` with the bytes of a file from `at` on.
///
/// # Errors
/// When the file ends before.
pub(crate) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, to, at);
    #[cfg(not(unix))]
    {
        let mut done = 0;
        while done < to.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut to[done..], at + done as u64) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk and renames it to `path`. Creates missing
/// parent folders. A link stays, and its target is replaced. A file that is replaced keeps its mode and, where the system
/// allows, its owner.
///
/// # Errors
/// When a step fails; the file then keeps its old contents. When `path` is a folder, device, pipe or socket.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// [`write_atomic`], with contents that `fill` writes.
///
/// # Errors
/// As [`write_atomic`], and those of `fill`.
pub(crate) fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let old = check_output(path)?;
    let target = follow(path)?;
    target.file_name().ok_or_else(|| Error::invalid(path, "is not the name of a file"))?;
    let folder = folder_of(&target);
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    replace(path, &target, old, fill)
}

/// Makes the folder `path` of the files that `fill` writes: in a temporary folder beside it, which is renamed once all of them are
/// there. Creates missing parent folders.
///
/// # Errors
/// As [`check_new`], those of `fill`, and when a step fails. Nothing is left then.
pub(crate) fn make_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_new(path)?;
    let parent = folder_of(path);
    fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
    remove_left(path);
    let failed = |e| Error::io(path, e);
    let mut options = tempfile::Builder::new();
    let prefix = temporary_prefix(path);
    options.prefix(&prefix).suffix(TEMPORARY);
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777)); // less the umask
    let made = options.tempdir_in(parent).map_err(failed)?;
    // Some systems open no folders. There nothing is removed later.
    let held = File::open(made.path());
    let _ = held.as_ref().map(File::lock);
    fill(made.path())?;
    sync_dir(made.path())?;
    check_new(path)?;
    fs::rename(made.path(), path).map_err(failed)?;
    let _ = made.keep();
    sync_dir(parent)
}

/// Checks that nothing has the name `path`, not even a link.
///
/// # Errors
/// [`Error::Invalid`] names what has it.
pub fn check_new(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(old) => {
            Err(Error::invalid(path, format!("is a {} that exists: no folder is replaced", kind(old.file_type()))))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// [`write_atomic`] for a file of this program's own name in a folder, which must exist.
///
/// # Errors
/// As [`write_atomic`], and when the file is a link.
pub(crate) fn write_within(path: &Path, bytes: &[u8]) -> Result<()> {
    write_within_with(path, |out| out.write_all(bytes))
}

/// [`write_within`], with contents that `fill` writes.
///
/// # Errors
/// As [`write_within`], and those of `fill`.
pub(crate) fn write_within_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let old = replaceable(path, fs::symlink_metadata(path))?;
    replace(path, path, old, fill)
}

/// This program's folder for what it can make again: in `XDG_CACHE_HOME`, or where the system keeps such files of the user.
/// `None` if that is unknown.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let system = || match () {
        () if cfg!(windows) => named("LOCALAPPDATA"),
        () if cfg!(target_os = "macos") => Some(named("HOME")?.join("Library/Caches")),
        () => Some(named("HOME")?.join(".cache")),
    };
    Some(named("XDG_CACHE_HOME").or_else(system)?.join("nanotern"))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Replaces `target`, whether it exists or not, by a file that `fill` writes. Errors are about `path`.
fn replace(
    path: &Path,
    target: &Path,
    old: Option<Metadata>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut out = BufWriter::new(temporary(target)?);
    let write = || {
        fill(&mut out)?;
        let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if let Some(old) = old {
            take_after(temporary.as_file(), &old)?;
        }
        temporary.as_file().sync_all()?;
        temporary.persist(target).map_err(|e| e.error).map(|_| ())
    };
    write().map_err(|e| Error::io(path, e))
}

/// How the name of a temporary file or folder ends.
const TEMPORARY: &str = ".tmp";

/// How the name of a temporary file or folder begins that is to become `target`.
fn temporary_prefix(target: &Path) -> String {
    format!(".nanotern-{:08x}-", crc32c::crc32c(target.file_name().unwrap_or_default().as_encoded_bytes()))
}

/// Removes what killed writers of `target` have left beside it: a writer holds a lock on its file or folder.
fn remove_left(target: &Path) {
    let prefix = temporary_prefix(target);
    let unlocked = |file: File| file.try_lock().is_ok();
    for entry in fs::read_dir(folder_of(target)).into_iter().flatten().flatten() {
        let like = |name: &str| name.starts_with(&prefix) && name.ends_with(TEMPORARY);
        let (path, of) = (entry.path(), entry.file_type());
        if !entry.file_name().to_str().is_some_and(like) {
            continue;
        }
        if of.as_ref().is_ok_and(FileType::is_file) && open(&path, Links::Refuse).is_ok_and(unlocked) {
            let _ = fs::remove_file(path);
        } else if of.is_ok_and(|of| of.is_dir()) && File::open(&path).is_ok_and(unlocked) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A new file beside `target`, to be moved there. Removes what killed writers of `target` have
/// left.
///
/// # Errors
/// When the folder or the file cannot be made.
pub(crate) fn temporary(target: &Path) -> Result<NamedTempFile> {
    remove_left(target);
    let (folder, prefix) = (folder_of(target), temporary_prefix(target));
    let mut options = tempfile::Builder::new();
    options.prefix(&prefix).suffix(TEMPORARY);
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    loop {
        let made = options.tempfile_in(folder).map_err(|e| Error::io(target, e))?;
        let _ = made.as_file().lock(); // without locks, nothing is removed
        // Before the lock, another writer may have taken it for one that was left.
        if made.path().exists() {
            return Ok(made);
        }
    }
}

/// Checks that `path`, with links followed, can be written: it is a regular file or does not exist. Returns what is known of
/// the file.
///
/// # Errors
/// [`Error::Invalid`] names what else it is.
pub fn check_output(path: &Path) -> Result<Option<Metadata>> {
    replaceable(path, fs::metadata(path))
}

fn replaceable(path: &Path, old: io::Result<Metadata>) -> Result<Option<Metadata>> {
    match old {
        Ok(old) => regular(path, old.file_type(), "replaced").map(|()| Some(old)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// What something is that is no regular file.
pub(crate) fn kind(of: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        match of {
            _ if of.is_fifo() => return "pipe",
            _ if of.is_socket() => return "socket",
            _ if of.is_char_device() || of.is_block_device() => return "device",
            _ => {}
        }
    }
    match of {
        _ if of.is_dir() => "folder",
        _ if of.is_symlink() => "link",
        _ if of.is_file() => "file",
        _ => "special file",
    }
}

/// Most links that lead to a file, as on Linux.
const MAX_LINKS: usize = 40;

/// The file that `path` leads to through links, whether it exists or not.
fn follow(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(target), // not a link
        }
    }
    Err(Error::invalid(path, format!("leads through more than {MAX_LINKS} links")))
}

/// Gives a new file the mode of the one that it replaces, and its owner and group if this user may.
#[cfg(unix)]
fn take_after(new: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let made = new.metadata()?;
    if made.gid() != old.gid() {
        let _ = fchown(new, None, Some(old.gid()));
    }
    if made.uid() != old.uid() {
        let _ = fchown(new, Some(old.uid()), None);
    }
    new.set_permissions(old.permissions())
}

#[cfg(not(unix))]
fn take_after(_new: &File, _old: &Metadata) -> io::Result<()> {
    Ok(())
}

/// How the text of a path begins that is not UTF-8.
const URL: &str = "file://";

/// What stays as it is in a path of a URL.
const KEPT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// A path as text, for files that hold text only. A path that is not UTF-8 becomes a `file://` URL, which [`path_of`] reads.
pub fn path_text(path: &Path) -> Cow<'_, str> {
    match path.to_str() {
        Some(text) if !text.starts_with(URL) => text.into(),
        _ => format!("{URL}{}", percent_encode(path.as_os_str().as_encoded_bytes(), KEPT)).into(),
    }
}

/// The path that a text stands for: itself, or what a `file://` URL spells.
pub fn path_of(text: &str) -> PathBuf {
    let Some(url) = text.strip_prefix(URL) else { return text.into() };
    let bytes: Vec<u8> = percent_decode_str(url).collect();
    #[cfg(unix)]
    let path = <OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes);
    #[cfg(not(unix))]
    let path = OsString::from(String::from_utf8_lossy(&bytes).into_owned());
    PathBuf::from(path)
}

/// Serialises an optional path by [`path_text`] and [`path_of`].
pub(crate) mod path_as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::path::PathBuf;

    pub(crate) fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(super::path_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(|text| super::path_of(&text)))
    }
}

/// Reads a UTF-8 file of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and when it is not UTF-8; the error names the first invalid byte and its offset.
pub(crate) fn read_utf8(path: &Path, links: Links, limit: u64) -> Result<String> {
    String::from_utf8(read(path, links, limit)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        not_utf8(path, e.as_bytes()[at], at as u64)
    })
}

/// The error of a file with a byte that UTF-8 does not have there.
pub(crate) fn not_utf8(path: &Path, byte: u8, offset: u64) -> Error {
    Error::invalid(path, format!("is not UTF-8: byte 0x{byte:02x} at offset {offset}"))
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
        let full = write_atomic_with(&path, |_| Err(ErrorKind::StorageFull.into()));
        assert!(full.unwrap_err().to_string().starts_with(&path.display().to_string()));
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"two".to_vec(), 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_larger_than_the_free_memory_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        let size = memory::free().max(1 << 40) + (1 << 30);
        File::create(&path).unwrap().set_len(size).unwrap();
        let message = read(&path, Links::Refuse, size).unwrap_err().to_string();
        for part in [&*path.display().to_string(), "MiB are free: use a smaller file"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let part = read_part(&File::open(&path).unwrap(), 8, size - 8).unwrap_err();
        assert_eq!(part.kind(), ErrorKind::OutOfMemory);
        assert!(part.to_string().contains("MiB are free"), "{part}");
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_others_write_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let names = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let living = temporary(&path).unwrap();
        let other = temporary(&dir.path().join("y")).unwrap().keep().unwrap().1;
        for _ in 0..2 {
            drop(temporary(&path).unwrap().keep().unwrap().0); // as a kill leaves it
        }
        assert!(names().len() > 2);
        write_atomic(&path, b"new").unwrap();
        assert_eq!((names().len(), fs::read(&path).unwrap()), (3, b"new".to_vec()), "{:?}", names());
        assert!(other.exists(), "that is of another file");
        living.persist(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_folder_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/x");
        let names = || fs::read_dir(dir.path().join("new")).unwrap().map(|entry| entry.unwrap().file_name());
        let failed = make_folder(&path, |folder| write_within(&folder.join("a"), b"1").and(Err(Error::usage("no"))));
        assert!(failed.is_err() && names().count() == 0);
        // As a kill leaves it.
        let left = dir.path().join("new").join(format!("{}x{TEMPORARY}", temporary_prefix(&path)));
        fs::create_dir(&left).unwrap();
        make_folder(&path, |folder| {
            assert!(!path.exists());
            assert!(cfg!(not(unix)) || !left.exists());
            // Another writer leaves this one alone.
            remove_left(&path);
            write_within(&folder.join("a"), b"1")
        })
        .unwrap();
        assert_eq!((fs::read(path.join("a")).unwrap(), names().count()), (b"1".to_vec(), 1));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&dir.path().join("new")), "as other new folders");
        }
        let again = make_folder(&path, |_| unreachable!("it exists")).unwrap_err().to_string();
        assert!(again.ends_with("is a folder that exists: no folder is replaced"), "{again}");
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    }

    #[test]
    #[cfg(unix)]
    fn links_stay_and_modes_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("sub", at("folder")).unwrap();
        // A link to a link that is relative to a linked folder, and one to a file that is yet to be.
        for (link, to) in [("link", "folder/inner"), ("sub/inner", "../sub/real"), ("dangling", "sub/new")] {
            symlink(to, at(link)).unwrap();
        }
        fs::write(at("sub/real"), "old").unwrap();
        fs::set_permissions(at("sub/real"), PermissionsExt::from_mode(0o640)).unwrap();
        for (link, real) in [("link", "sub/real"), ("dangling", "sub/new"), ("folder/plain", "sub/plain")] {
            write_atomic(&at(link), link.as_bytes()).unwrap();
            assert_eq!(fs::read(at(real)).unwrap(), link.as_bytes());
        }
        assert!(["link", "sub/inner", "dangling", "folder"].iter().all(|name| at(name).is_symlink()));
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        fs::write(at("usual"), "").unwrap();
        assert_eq!((mode("sub/real"), mode("sub/new")), (0o640, mode("usual")));
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(write_atomic(&at("a"), b"").is_err());
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in [(dir.path(), "folder"), (&socket, "socket"), (Path::new("/dev/null"), "device")] {
            let message = write_atomic(path, b"").unwrap_err().to_string();
            assert_eq!(message, format!("{}: is a {what}: only a regular file can be replaced", path.display()));
        }
        assert!(socket.exists() && fs::read_dir(dir.path()).unwrap().count() == 1);
    }

    #[test]
    fn a_path_as_text_and_back() {
        for path in ["data/a b%20.txt", "file:///x", "ein Käfer"] {
            assert_eq!(path_of(&path_text(Path::new(path))), Path::new(path));
        }
        assert_eq!(path_text(Path::new("a b%20")), "a b%20");
        #[cfg(unix)]
        {
            let path = PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(b"/t/p\xff% q".to_vec()));
            assert_eq!(path_text(&path), "file:///t/p%FF%25%20q");
            assert_eq!(path_of("file:///t/p%FF%25%20q"), path);
        }
    }
}
