//! An advisory lock that allows one trainer for each run directory. The file `.lock` contains the holder's pid. The operating
//! system releases the lock whenever and however the process ends; the file stays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{self, Links};

/// Exclusive use of a run directory, until dropped. Only the holder may call [`save`](super::save) and
/// [`prune`](super::prune).
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// The file name inside a run directory.
    pub const FILE_NAME: &str = ".lock";

    /// Most bytes of a lock file: a pid.
    pub(crate) const MAX_BYTES: u64 = 64;

    /// Locks `run_dir`, creating it if needed.
    ///
    /// # Errors
    /// [`Error::Training`] if another process, or another lock of this process, holds the directory; it names the directory
    /// and the holder's pid. [`Error::Io`] if the lock file cannot be written or the file system does not support locks.
    /// [`Error::Invalid`] if what is written into it would appear in another file: it is a link, or has another name.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        fs::create_dir_all(run_dir).map_err(|e| Error::io(run_dir, e))?;
        let path = run_dir.join(Self::FILE_NAME);
        // Not truncated on open: until the lock is ours, it contains the holder's pid.
        let mut file = files::open_within(&path, OpenOptions::new().read(true).write(true).create(true))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Windows does not allow reading a locked file; the pid is then unknown.
                let pid = read(&path).unwrap_or_default();
                let holder = match pid.trim() {
                    "" => "another process".to_string(),
                    pid => format!("process {pid}"),
                };
                let dir = run_dir.display();
                return Err(Error::Training(format!(
                    "{dir}: {holder} is already training in this directory; stop it or choose another --checkpoint-dir"
                )));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
        }
        if files::has_other_names(&file) {
            let what = "has another name (a hard link), under which what is written here would appear: delete it";
            return Err(Error::invalid(&path, what));
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(|e| Error::io(&path, e))?;
        Ok(RunLock { path, file })
    }

    /// Checks that the directory is still there, and the one that was locked.
    ///
    /// # Errors
    /// [`Error::Training`] names the directory.
    pub fn check(&self) -> Result<()> {
        // What cannot be seen now may still be there.
        let gone = |e: Error| matches!(e, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound);
        if files::is_at(&self.file, &self.path).unwrap_or_else(|e| !gone(e)) {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(Path::new("")).display();
        Err(Error::Training(format!("{dir}: the directory of the run was removed or replaced while it trained")))
    }
}

fn read(path: &Path) -> Result<String> {
    files::read_utf8(path, Links::Refuse, RunLock::MAX_BYTES)
}
