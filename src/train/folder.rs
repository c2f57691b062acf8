//! The folder of a run. A run starts in a folder that is new or empty, or in one that is a run already: with a `config.toml`
//! that is a configuration of this program, and its `.lock` or `metrics.jsonl` beside it. Any other folder stays as it is.

use super::config::Config;
use super::{metrics, plot, tensorboard};
use crate::checkpoint::{self, RunLock};
use crate::files::{self, Links, read_utf8, write_within};
use crate::{Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.toml";

/// How a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// Afresh, in a new folder within this one. Its name is the Unix time in seconds.
    Within(&'a Path),
    /// Afresh, in this folder.
    New(&'a Path),
    /// From the newest checkpoint of the run in this folder, if it has one.
    Resume(&'a Path),
    /// From the weights of the newest checkpoint of a run, with step 0 and a fresh optimizer, in another folder.
    Fork {
        /// The run that the weights are read from. It stays as it is.
        from: &'a Path,
        /// The folder of the new run.
        to: &'a Path,
        /// Whether each matrix is replaced by its polar factor.
        fire: bool,
    },
}

impl Start<'_> {
    /// Checks that the folder may be written into. [`Run::new`](super::Run::new) does, too; this is for a caller that has much
    /// to prepare before.
    ///
    /// # Errors
    /// [`Error::Usage`] names a folder that belongs to something else; [`Error::Io`] if it cannot be read; [`Error::Invalid`]
    /// names what is not what it should be, such as a link in the place of a log.
    pub fn check(self) -> Result<()> {
        match self {
            Start::Within(_) => {}
            Start::New(dir) | Start::Resume(dir) => check_names(dir)?,
            Start::Fork { from, to, .. } => check_names(from).and_then(|()| check_names(to))?,
        }
        match self {
            Start::Within(_) => Ok(()),
            Start::Resume(dir) if is_run(dir) => Ok(()),
            Start::Resume(dir) => Err(Error::usage(format!("--resume: {} is not a run of nanotern", dir.display()))),
            Start::New(dir) | Start::Fork { to: dir, .. } if is_run(dir) || is_vacant(dir)? => Ok(()),
            Start::New(dir) | Start::Fork { to: dir, .. } => {
                let what = "is not empty, and not a run of nanotern: choose a new or an empty folder";
                Err(Error::usage(format!("{}: {what}", dir.display())))
            }
        }
    }

    /// Finds and locks the folder of the run.
    ///
    /// # Errors
    /// As [`Start::check`], and when another process has the folder.
    pub(super) fn open(self) -> Result<Folder> {
        self.check()?;
        let (path, new) = match self {
            Start::Within(runs) => (create_within(runs)?, true),
            Start::New(dir) | Start::Resume(dir) | Start::Fork { to: dir, .. } => (dir.to_path_buf(), !dir.exists()),
        };
        let lock = RunLock::acquire(&path)?;
        Ok(Folder { path, new, lock })
    }
}

/// The locked folder of a run. If the run is refused before it writes anything, the folder is left as it was.
pub(super) struct Folder {
    path: PathBuf,
    /// The folder was created for the run.
    new: bool,
    lock: RunLock,
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the folder was not removed or replaced meanwhile: what is written now would be no run.
    pub(super) fn check(&self) -> Result<()> {
        self.lock.check()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.path.join(CONFIG).exists() {
            // What cannot be removed is no harm: a folder with a lock counts as empty.
            let _ = fs::remove_file(self.path.join(RunLock::FILE_NAME));
            if self.new {
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

fn is_run(dir: &Path) -> bool {
    let text = || read_utf8(&dir.join(CONFIG), Links::Refuse, Config::MAX_BYTES);
    let config = || text().is_ok_and(|text| toml::from_str::<Config>(&text).is_ok());
    [RunLock::FILE_NAME, metrics::FILE_NAME].iter().any(|name| dir.join(name).is_file()) && config()
}

/// Checks that every name of this program in a folder is a file or a folder, as it should be: a link could lead anywhere, and
/// a pipe be waited for.
fn check_names(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io(dir, e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if [RunLock::FILE_NAME, CONFIG, metrics::FILE_NAME, plot::FILE_NAME].contains(&name)
            || name.starts_with(tensorboard::PREFIX)
        {
            files::check_within(&path)?;
        } else if checkpoint::is_own(name) {
            checkpoint::check_within(&path)?;
        }
    }
    Ok(())
}

/// Whether a folder does not exist, or has nothing but the lock of a run that was refused: a file with a pid.
fn is_vacant(dir: &Path) -> Result<bool> {
    let is_lock = |entry: fs::DirEntry| {
        let pid = |text: String| text.trim().bytes().all(|b| b.is_ascii_digit());
        let is_file = entry.file_type().is_ok_and(|t| t.is_file()) && entry.file_name() == RunLock::FILE_NAME;
        is_file && read_utf8(&entry.path(), Links::Refuse, RunLock::MAX_BYTES).is_ok_and(pid)
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(is_lock))),
        Err(e) if e.kind() == ErrorKind::NotFound => match broken_link(dir) {
            Some(link) => Err(Error::invalid(link, "is a link to nothing: a run needs a folder")),
            None => Ok(true),
        },
        Err(e) => Err(Error::io(dir, e)),
    }
}

/// A link to nothing, which keeps `dir` from being created.
fn broken_link(dir: &Path) -> Option<&Path> {
    // Without a slash at the end, which would follow the link.
    dir.components().as_path().ancestors().find(|dir| dir.is_symlink() && !dir.exists())
}

/// Creates a folder that no other process has.
fn create_within(runs: &Path) -> Result<PathBuf> {
    fs::create_dir_all(runs).map_err(|e| Error::io(runs, e))?;
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut dir = runs.join(seconds.to_string());
    for n in 1.. {
        match fs::create_dir(&dir) {
            Ok(()) => break,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => dir = runs.join(format!("{seconds}-{n}")),
            Err(e) => return Err(Error::io(&dir, e)),
        }
    }
    Ok(dir)
}

/// Writes the resolved configuration of a run.
pub(super) fn write_config(config: &Config, dir: &Path) -> Result<()> {
    let text = toml::to_string_pretty(config).map_err(|e| Error::usage(e.to_string()))?;
    write_within(&dir.join(CONFIG), text.as_bytes())
}

/// The run in `runs` whose log was written last.
///
/// # Errors
/// When `runs` cannot be read or contains no run.
pub fn newest_run(runs: &Path) -> Result<PathBuf> {
    let entries = match fs::read_dir(runs) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(runs, e)),
        entries => entries.into_iter().flatten(),
    };
    let dated = entries.flatten().filter_map(|e| {
        let changed = e.path().join(metrics::FILE_NAME).symlink_metadata().and_then(|m| m.modified()).ok()?;
        Some((changed, e.path()))
    });
    let none = || Error::usage(format!("there is no run in {}: start one with nanotern train", runs.display()));
    dated.max().map(|(_, path)| path).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_said_before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("target"), &link).unwrap();
        for run in [link.clone(), link.join(""), link.join("run")] {
            let said = Start::New(&run).check().unwrap_err().to_string();
            assert!(said.contains("link") && said.contains("a link to nothing"), "{said}");
        }
        fs::create_dir(dir.path().join("target")).unwrap();
        Start::New(&link.join("run")).check().unwrap();
    }

    #[test]
    fn folders_within_another_are_unique_under_a_race() {
        let runs = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let make = || {
            start.wait();
            (0..8).map(|_| Start::Within(runs.path()).open().unwrap()).collect::<Vec<_>>()
        };
        let made: Vec<Folder> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(make)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let paths: std::collections::BTreeSet<&Path> = made.iter().map(Folder::path).collect();
        assert_eq!(paths.len(), 64);
        drop(made);
        assert_eq!(fs::read_dir(runs.path()).unwrap().count(), 0, "nothing is left of runs that wrote nothing");
    }
}
