//! TensorBoard event files, without protobuf or TensorFlow.
//!
//! A file is a sequence of TFRecords: length u64, masked CRC32C of the length, data, masked CRC32C of the data, all
//! little-endian. A masked checksum is `rotate_right(crc, 15) + 0xa282ead8`. The data is an `Event` message with these fields:
//! wall_time = 1 (double), step = 2 (int64), file_version = 3 (string, the first event), summary = 5, session_log = 7. A
//! summary contains `value = 1 { tag = 1, simple_value = 2 (float) }`. NaN and infinities are allowed.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::log::Log;

/// What the name of an event file begins with.
pub(super) const PREFIX: &str = "events.out.tfevents";

/// Writes scalars to the event file of a run. Every method returns what is to be said: a file that cannot be written is said
/// once, and tried again.
pub struct EventWriter {
    log: Log,
}

impl EventWriter {
    /// Goes on with the newest event file in `dir`, from which a torn record is removed, or starts
    /// `events.out.tfevents.<unix time>.<pid>`. TensorBoard drops the points after step `after` that come before.
    pub fn open(dir: &Path, after: u64) -> (Self, Option<String>) {
        let name = || format!("{PREFIX}.{:010}.{}", now() as u64, std::process::id());
        let path = newest(dir).unwrap_or_else(|| dir.join(name()));
        let mut writer = EventWriter { log: Log::open(path, from_whole_records) };
        let said = writer.restart(after);
        (writer, said)
    }

    /// Makes TensorBoard drop the points after step `after` that were written so far.
    pub fn restart(&mut self, after: u64) -> Option<String> {
        self.log.append(&record(&event(now(), after.saturating_add(1), Payload::SessionStart)))
    }

    /// Appends the scalars `(tag, value)` at `step`.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f32)]) -> Option<String> {
        self.log.append(&record(&event(now(), step, Payload::Scalars(scalars))))
    }

    /// Tries for the last time to write what could not be written.
    pub fn close(&mut self) -> Option<String> {
        self.log.close()
    }

    /// The path of the event file.
    pub fn path(&self) -> &Path {
        self.log.path()
    }
}

/// The newest event file in a folder.
fn newest(dir: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_file()));
    files.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)).map(|e| e.path()).max()
}

/// The whole records of a file up to the first that is torn; of one without any, the record that each file begins with.
fn from_whole_records(file: &[u8]) -> Vec<u8> {
    let mut whole = 0;
    while let Some(length) = whole_record(&file[whole..]) {
        whole += length;
    }
    if whole == 0 { record(&event(now(), 0, Payload::FileVersion)) } else { file[..whole].to_vec() }
}

/// The length of the record that a text begins with, if it is whole.
fn whole_record(text: &[u8]) -> Option<usize> {
    let (length, rest) = text.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let data = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let end = rest[data.len()..].first_chunk::<4>()?;
    (masked_crc(length) == *crc && masked_crc(data) == *end).then_some(8 + 4 + data.len() + 4)
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
