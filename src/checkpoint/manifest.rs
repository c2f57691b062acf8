//! `manifest.json`: name, size and CRC32C of every file of a checkpoint. It is written last, so a directory without one is an
//! unfinished checkpoint.
//!
//! The manifest protects itself: it must equal its own canonical serialisation byte for byte, and its `crc32c` is the
//! checksum of the canonical text with that field set to [`NO_CRC`]. A changed byte therefore gives invalid JSON, a
//! non-canonical text (spacing, key order, spelling of a number), or a value that the checksum detects.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
        let bytes = read_bounded(&path, MAX_BYTES)?;
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
        Ok(manifest)
    }

    pub(super) fn entry(&self, dir: &Path, name: &str) -> Result<&Entry> {
        let path = dir.join(name);
        self.files.iter().find(|e| e.name == name).ok_or_else(|| Error::invalid(&path, "missing from the manifest"))
    }
}

impl Entry {
    /// Checks the size of the file at `path` against the manifest, which bounds the memory that a reader allocates for it.
    fn check_size(&self, path: &Path) -> Result<()> {
        let have = match fs::metadata(path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::invalid(path, "missing")),
            Err(e) => return Err(Error::io(path, e)),
        };
        let want = self.bytes;
        match have.cmp(&want) {
            std::cmp::Ordering::Less => Err(Error::invalid(path, format!("truncated: have {have} bytes, want {want}"))),
            std::cmp::Ordering::Greater => {
                Err(Error::invalid(path, format!("too long: have {have} bytes, want {want}")))
            }
            std::cmp::Ordering::Equal => Ok(()),
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
        self.check_size(&path)?;
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        self.check_crc(&path, crc32c::crc32c(&bytes))?;
        Ok(bytes)
    }

    /// Verifies the file in constant memory.
    pub(super) fn verify(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&self.name);
        self.check_size(&path)?;
        let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let mut buf = vec![0; 1 << 20];
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

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(path, "missing: the checkpoint was never completed"),
        _ => Error::io(path, e),
    })?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::invalid(path, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}
