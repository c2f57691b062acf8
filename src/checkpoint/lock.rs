//! An advisory lock that allows one trainer for each run directory. The file `.lock` contains the holder's pid. The operating
//! system releases the lock whenever and however the process ends; the file stays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Exclusive use of a run directory, until dropped. Only the holder may call [`save`](super::save) and
/// [`prune`](super::prune).
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// The file name inside a run directory.
    pub const FILE_NAME: &str = ".lock";

    /// Locks `run_dir`, creating it if needed.
    ///
    /// # Errors
    /// [`Error::Training`] if another process, or another lock of this process, holds the directory; it names the directory
    /// and the holder's pid. [`Error::Io`] if the lock file cannot be written or the file system does not support locks.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        fs::create_dir_all(run_dir).map_err(|e| Error::io(run_dir, e))?;
        let path = run_dir.join(Self::FILE_NAME);
        // Not truncated on open: until the lock is ours, it contains the holder's pid.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Windows does not allow reading a locked file; the pid is then unknown.
                let pid = fs::read_to_string(&path).unwrap_or_default();
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
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|e| Error::io(&path, e))?;
        Ok(RunLock { _file: file })
    }
}
