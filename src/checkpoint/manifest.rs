//! `manifest.json`: name, size and CRC32C of every file of a checkpoint. It is written last, so a directory without one is an
//! unfinished checkpoint.
//!
//! The manifest protects itself: it must equal its own canonical serialisation byte for byte, and its `crc32c` is the
//! checksum of the canonical text with that field set to [`NO_CRC`]. A changed byte therefore gives invalid JSON, a
//! non-canonical text (spacing, key order, spelling of a number), or a value that the checksum detects.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, Links};

pub(super) const NAME: &str = "manifest.json";
const FORMAT: u32 = 1;
const NO_CRC: &str = "00000000";
/// Most bytes of a manifest; real ones have less than a kilobyte. A larger file is rejected before it is read whole.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    pub bytes: u64,
    /// Eight lower-case hexadecimal digits.
    pub crc32c: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    pub files: Vec<Entry>,
    crc32c: String,
}

impl Manifest {
    pub(super) fn new(files: Vec<Entry>) -> Self {
        let mut manifest = Manifest { format: FORMAT, files, crc32c: NO_CRC.to_string() };
        manifest.crc32c = hex(crc32c::crc32c(&manifest.to_bytes()));
        manifest
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("strings and integers always serialise");
        bytes.push(b'\n');
        bytes
    }

    /// Reads and checks the manifest of `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let bytes = match files::read(&path, Links::Refuse, MAX_BYTES) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(Error::invalid(&path, "missing: the checkpoint was never completed"));
            }
            bytes => bytes?,
        };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(&path, format!("damaged, not a checkpoint manifest ({e})")))?;
        if manifest.format > FORMAT {
            let what = format!("format {} is newer than this program supports ({FORMAT})", manifest.format);
            return Err(Error::invalid(&path, what));
        }
        let mut unsigned = manifest.clone();
        unsigned.crc32c = NO_CRC.to_string();
        let have = hex(crc32c::crc32c(&unsigned.to_bytes()));
        if manifest.to_bytes() != bytes || manifest.crc32c != have {
            let what = format!("checksum: have {have}, want {}", manifest.crc32c);
            return Err(Error::invalid(&path, what));
        }
        for (i, Entry { name, bytes, .. }) in manifest.files.iter().enumerate() {
            let wrong = match super::store::limit(name) {
                None => "is no file of a checkpoint".to_string(),
                Some(limit) if *bytes > limit => format!("has {bytes} bytes: at most {limit} are read"),
                Some(_) if manifest.files[..i].iter().any(|e| e.name == *name) => "is there twice".to_string(),
                Some(_) => continue,
            };
            return Err(Error::invalid(&path, format!("{name:?} {wrong}")));
        }
        Ok(manifest)
    }

    pub(super) fn entry(&self, dir: &Path, name: &str) -> Result<&Entry> {
        let path = dir.join(name);
        self.files.iter().find(|e| e.name == name).ok_or_else(|| Error::invalid(&path, "missing from the manifest"))
    }
}

impl Entry {
    /// Opens the file and checks its size against the manifest, which bounds what a reader reads and allocates.
    fn open(&self, path: &Path) -> Result<File> {
        let file = match files::open(path, Links::Refuse) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(Error::invalid(path, "missing"));
            }
            file => file?,
        };
        let (have, want) = (file.metadata().map_err(|e| Error::io(path, e))?.len(), self.bytes);
        match have.cmp(&want) {
            std::cmp::Ordering::Less => Err(Error::invalid(path, format!("truncated: have {have} bytes, want {want}"))),
            std::cmp::Ordering::Greater => {
                Err(Error::invalid(path, format!("too long: have {have} bytes, want {want}")))
            }
            std::cmp::Ordering::Equal => Ok(file),
        }
    }

    fn check_crc(&self, path: &Path, crc: u32) -> Result<()> {
        let have = hex(crc);
        if have == self.crc32c {
            return Ok(());
        }
        Err(Error::invalid(path, format!("checksum: have {have}, want {}", self.crc32c)))
    }

    /// The verified content of the file.
    pub(super) fn read(&self, dir: &Path) -> Result<Vec<u8>> {
        let path = dir.join(&self.name);
        let bytes = files::read_all(&path, &self.open(&path)?, self.bytes)?;
        self.check_crc(&path, crc32c::crc32c(&bytes))?;
        Ok(bytes)
    }

    /// Verifies the file in constant memory.
    pub(super) fn verify(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&self.name);
        let mut file = self.open(&path)?.take(self.bytes);
        let mut buf = vec![0; self.bytes.min(1 << 20) as usize];
        let mut crc = 0;
        loop {
            match file.read(&mut buf).map_err(|e| Error::io(&path, e))? {
                0 => return self.check_crc(&path, crc),
                n => crc = crc32c::crc32c_append(crc, &buf[..n]),
            }
        }
    }
}

/// Writes a new file through `fill`, flushes it to the disk, and returns its manifest entry.
pub(super) fn write_file(
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<Entry> {
    let path = dir.join(name);
    let write = || -> std::io::Result<Entry> {
        let mut writer = CrcWriter { inner: BufWriter::new(File::create_new(&path)?), crc: 0, bytes: 0 };
        fill(&mut writer)?;
        let (crc, bytes) = (writer.crc, writer.bytes);
        let file = writer.inner.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Entry { name: name.to_string(), bytes, crc32c: hex(crc) })
    };
    write().map_err(|e| Error::io(&path, e))
}

struct CrcWriter<W> {
    inner: W,
    crc: u32,
    bytes: u64,
}

impl<W: Write> Write for CrcWriter<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.crc = crc32c::crc32c_append(self.crc, &buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_of_a_manifest_are_those_of_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str, bytes| Entry { name: name.to_string(), bytes, crc32c: NO_CRC.to_string() };
        let read = |files: Vec<Entry>| {
            std::fs::write(dir.path().join(NAME), Manifest::new(files).to_bytes()).unwrap();
            Manifest::read(dir.path()).map(|manifest| manifest.files.len()).map_err(|e| e.to_string())
        };
        for name in
            ["", ".", "..", "/dev/zero", "../meta.json", "a/b", "a\\b", "./meta.json", "meta.json/", "META.JSON"]
        {
            let message = read(vec![entry("meta.json", 9), entry(name, 0)]).unwrap_err();
            assert!(message.contains(&format!("{name:?} is no file of a checkpoint")), "{message}");
        }
        let message = read(vec![entry("meta.json", 9), entry("meta.json", 9)]).unwrap_err();
        assert!(message.contains("\"meta.json\" is there twice"), "{message}");
        let message = read(vec![entry("meta.json", u64::MAX)]).unwrap_err();
        assert!(message.contains("has 18446744073709551615 bytes: at most 1048576 are read"), "{message}");
        assert_eq!(read(vec![entry("meta.json", 9), entry("model.safetensors", 1 << 36)]), Ok(2));
    }
}
