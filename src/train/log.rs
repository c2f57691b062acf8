//! A log of a run: a file that records are appended to. A log never ends a run: what cannot be written, for the disk is full or
//! permission was lost, is kept in memory and tried again with the next record. That is said once, and so is that it works
//! again.

use crate::files::{self, Links, has_other_names, open_within, write_within};
use crate::{Error, Result};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Most bytes of a log that are read.
const MOST: u64 = 1 << 30;
/// Most bytes that wait to be written. Records beyond them are lost, and counted.
const MOST_WAITING: usize = 16 << 20;

/// What a file, or the records that wait, are to become.
type Rewrite = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

/// A file that records are appended to.
pub(super) struct Log {
    path: PathBuf,
    /// To be done to the file before anything is appended.
    rewrites: Vec<Rewrite>,
    /// Bytes of whole records in the file; unknown before the first rewrite.
    whole: u64,
    waiting: Vec<u8>,
    lost: usize,
    paused: bool,
}

impl Log {
    /// The log in the file at `path`, which need not exist. `keep` gives what stays of its contents.
    pub(super) fn open(path: PathBuf, keep: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Log {
        Log { path, rewrites: vec![Box::new(keep)], whole: 0, waiting: Vec::new(), lost: 0, paused: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the log, with what waits to be written, by what `keep` makes of it.
    pub(super) fn rewrite(&mut self, keep: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
        self.waiting = keep(&self.waiting);
        self.rewrites.push(Box::new(keep));
    }

    /// Appends a record, after those that wait. Each call is a single write to the operating system. Returns what is to be said.
    pub(super) fn append(&mut self, record: &[u8]) -> Option<String> {
        if self.waiting.len() + record.len() <= MOST_WAITING {
            self.waiting.extend_from_slice(record);
        } else {
            self.lost += 1;
        }
        match self.write() {
            Ok(()) => {
                self.waiting.clear();
                let lost = match std::mem::take(&mut self.lost) {
                    0 => "nothing is missing".to_string(),
                    n => format!("{n} records are lost"),
                };
                let path = self.path.display();
                std::mem::take(&mut self.paused).then(|| format!("{path} is written again; {lost}"))
            }
            Err(e) => (!std::mem::replace(&mut self.paused, true))
                .then(|| format!("warning: {e}; the run goes on, and its records are written when that is possible")),
        }
    }

    /// Tries for the last time to write what waits. Returns what is to be said.
    pub(super) fn close(&mut self) -> Option<String> {
        let lost = || format!("warning: {} lacks the end: it could not be written", self.path.display());
        let lost = self.paused.then(lost);
        if self.paused { self.append(&[]).or(lost) } else { None }
    }

    fn write(&mut self) -> Result<()> {
        let path = &self.path;
        while let Some(rewrite) = self.rewrites.first() {
            let before = read_or_empty(path)?;
            let kept = rewrite(&before);
            // A log with another name (a hard link) is replaced: what is under that name stays as it is.
            if kept != before || files::open(path, Links::Refuse).is_ok_and(|file| has_other_names(&file)) {
                write_within(path, &kept)?;
            }
            self.whole = kept.len() as u64;
            drop(self.rewrites.remove(0));
        }
        // A log with records that is gone is not begun again: the folder may be another one by now.
        let create = self.whole == 0;
        let mut file = open_within(path, OpenOptions::new().write(true).create(create).truncate(false))?;
        let mut write = || -> std::io::Result<u64> {
            let length = file.metadata()?.len();
            if length > self.whole {
                file.set_len(self.whole)?; // a record that was torn
            }
            let end = file.seek(SeekFrom::Start(self.whole.min(length)))?;
            file.write_all(&self.waiting).inspect_err(|_| {
                // Best effort; otherwise the next write does it.
                let _ = file.set_len(end);
            })?;
            Ok(end + self.waiting.len() as u64)
        };
        self.whole = write().map_err(|e| Error::io(path, e))?;
        Ok(())
    }
}

/// The contents of a file; none if it does not exist.
pub(super) fn read_or_empty(path: &Path) -> Result<Vec<u8>> {
    match files::read(path, Links::Refuse, MOST) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn lines(log: &[u8]) -> Vec<u8> {
        let end = log.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        log[..end].to_vec()
    }

    #[test]
    fn what_cannot_be_written_waits_and_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a\nto").unwrap();
        let mut log = Log::open(path.clone(), lines);
        assert_eq!(log.append(b"b\n"), None);
        // Neither root nor anybody else can write to a folder.
        fs::rename(&path, dir.path().join("aside")).unwrap();
        fs::create_dir(&path).unwrap();
        let said = log.append(b"c\n").unwrap();
        assert!(
            said.starts_with(&format!("warning: {}: ", path.display())) && said.contains("the run goes on"),
            "{said}"
        );
        assert_eq!(log.append(b"d\n"), None, "said twice");
        log.rewrite(|log| {
            lines(log).split_inclusive(|b| *b == b'\n').filter(|l| *l != b"d\n").flatten().copied().collect()
        });
        log.append(b"e\n");
        fs::remove_dir(&path).unwrap();
        // A record that the disk took a part of.
        fs::write(&path, "a\nb\nc, of which more was to come").unwrap();
        assert_eq!(log.append(b"f\n").unwrap(), format!("{} is written again; nothing is missing", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\ne\nf\n");
        assert_eq!(log.close(), None);
    }

    #[test]
    fn what_does_not_fit_memory_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::create_dir(&path).unwrap();
        let mut log = Log::open(path.clone(), lines);
        let record = vec![b'x'; MOST_WAITING / 2 - 1];
        assert_eq!((0..5).filter_map(|_| log.append(&record)).count(), 1);
        assert!(log.close().unwrap().contains("lacks the end"));
        fs::remove_dir(&path).unwrap();
        assert!(log.append(b"y").unwrap().ends_with("is written again; 3 records are lost"));
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, 2 * record.len() + 1);
    }
}
