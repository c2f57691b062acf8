//! TensorBoard event files, without protobuf or TensorFlow.
//!
//! A file is a sequence of TFRecords: length u64, masked CRC32C of the length, data, masked CRC32C of the data, all
//! little-endian. A masked checksum is `rotate_right(crc, 15) + 0xa282ead8`. The data is an `Event` message with these fields:
//! wall_time = 1 (double), step = 2 (int64), file_version = 3 (string, the first event), summary = 5, session_log = 7. A
//! summary contains `value = 1 { tag = 1, simple_value = 2 (float) }`. NaN and infinities are allowed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// What the name of an event file begins with.
pub(super) const PREFIX: &str = "events.out.tfevents";

/// Writes scalars to one new event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<unix time>.<pid>` in `dir`, which must exist. With `resume_step` S, TensorBoard drops the points after step
    /// S of the earlier event files in that directory.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created or written.
    pub fn create(dir: &Path, resume_step: Option<u64>) -> Result<Self> {
        let name = format!("{PREFIX}.{:010}.{}", now() as u64, std::process::id());
        let (path, file) = create_new(dir, &name)?;
        let mut writer = EventWriter { path, out: BufWriter::new(file) };
        writer.append(&event(now(), 0, Payload::FileVersion))?;
        if let Some(step) = resume_step {
            writer.append(&event(now(), step.saturating_add(1), Payload::SessionStart))?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Appends the scalars `(tag, value)` at `step`. They are buffered until [`EventWriter::flush`] or drop.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f32)]) -> Result<()> {
        self.append(&event(now(), step, Payload::Scalars(scalars)))
    }

    /// Writes buffered events to the operating system, so that a TensorBoard that follows the run sees them.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e| Error::io(&self.path, e))
    }

    /// The path of the event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        self.out.write_all(&record(event)).map_err(|e| Error::io(&self.path, e))
    }
}

/// Creates the file. If the name exists, as when one process starts two writers within a second, a number is appended.
fn create_new(dir: &Path, name: &str) -> Result<(PathBuf, File)> {
    let mut path = dir.join(name);
    for n in 1.. {
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => path = dir.join(format!("{name}.{n}")),
            Err(e) => return Err(Error::io(&path, e)),
        }
    }
    unreachable!("a directory holds fewer files than there are integers")
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

enum Payload<'a> {
    FileVersion,
    /// `SessionLog { status = 1: START = 1 }`
    SessionStart,
    Scalars(&'a [(&'a str, f32)]),
}

fn event(wall_time: f64, step: u64, payload: Payload) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, FIXED64);
    out.extend_from_slice(&wall_time.to_le_bytes());
    if step != 0 {
        key(&mut out, 2, VARINT);
        varint(&mut out, step);
    }
    match payload {
        Payload::FileVersion => bytes(&mut out, 3, b"brain.Event:2"),
        Payload::SessionStart => bytes(&mut out, 7, &[1 << 3, 1]),
        Payload::Scalars(scalars) => {
            let mut summary = Vec::new();
            for (tag, value) in scalars {
                let mut scalar = Vec::new();
                bytes(&mut scalar, 1, tag.as_bytes());
                key(&mut scalar, 2, FIXED32);
                scalar.extend_from_slice(&value.to_le_bytes());
                bytes(&mut summary, 1, &scalar);
            }
            bytes(&mut out, 5, &summary);
        }
    }
    out
}

// Protobuf wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    key(out, field, BYTES);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_is_the_one_tensorboard_writes() {
        // The output of tensorboard's own RecordWriter for this event.
        let want = [
            0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22, // length 24, its checksum
            0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // wall_time
            0x1a, 0x0d, b'b', b'r', b'a', b'i', b'n', b'.', b'E', b'v', b'e', b'n', b't', b':',
            b'2', // file_version
            0x2a, 0x28, 0x64, 0x6c, // checksum of the data
        ];
        assert_eq!(record(&event(1.5, 0, Payload::FileVersion)), want);
    }

    #[test]
    fn a_scalar_event_is_encoded_byte_for_byte() {
        let want = [
            0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // wall_time 1.5
            0x10, 0xac, 0x02, // step 300
            0x2a, 0x0d, 0x0a, 0x0b, 0x0a, 0x04, b'l', b'o', b's', b's', 0x15, 0, 0, 0x80, 0x3e, // loss 0.25
        ];
        assert_eq!(event(1.5, 300, Payload::Scalars(&[("loss", 0.25)])), want);
        let start = event(1.5, 3, Payload::SessionStart);
        assert_eq!(start[9..], [0x10, 3, 0x3a, 2, 8, 1]);
    }
}
