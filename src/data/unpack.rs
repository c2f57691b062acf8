//! Reads files that are compressed or not, with bounded memory, and counts what was read of them.

use super::progress::Meter;
use super::sources::{Packing, Source};
use crate::error::{Result, caught};
use crate::files::{self, Links};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// Opens a file for reading. The bytes read of the file itself advance `meter`.
pub(super) fn open<'a>(source: &Source, meter: &'a Meter) -> Result<Box<dyn BufRead + 'a>> {
    let file = files::open(&source.path, Links::Follow)?;
    let plain = BufReader::with_capacity(BUFFER, Counted { file, meter });
    Ok(match source.packing {
        Packing::None => Box::new(plain),
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER, Guarded(MultiGzDecoder::new(plain)))),
        Packing::Zstd => Box::new(BufReader::with_capacity(BUFFER, Guarded(Frames::new(plain)))),
    })
}

struct Counted<'a> {
    file: File,
    meter: &'a Meter,
}

impl Read for Counted<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(to)?;
        self.meter.add(n as u64);
        Ok(n)
    }
}

/// A decoder of a library, which may panic at a damaged file. A panic becomes an error.
struct Guarded<R>(R);

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        caught(|| self.0.read(to)).unwrap_or_else(|_| Err(io::Error::other("it is damaged")))
    }
}

/// Reads the frames of a Zstandard file one after another.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        Frames { source, decoder: FrameDecoder::new() }
    }

    /// Opens the next frame. Returns whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        let (told, have) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if told.is_some() && told != have {
            return Err(io::Error::other("a checksum does not fit: the file is damaged"));
        }
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, strategy).map_err(io::Error::other)?;
            } else if !self.next()? {
                return Ok(0);
            }
        }
        self.decoder.read(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Frames::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn frames_follow_each_other() {
        let text = "one two three ".repeat(30_000);
        let frame = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
        let file = [frame(&text), skippable, frame(""), frame("end")].concat();
        assert_eq!(all(&file).unwrap(), (text + "end").as_bytes());
        assert!(all(b"").unwrap().is_empty());
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                Ok(usize::from(to[to.len()]))
            }
        }
        assert_eq!(Guarded(Panics).read(&mut [0]).unwrap_err().to_string(), "it is damaged");
    }

    #[test]
    fn damaged_frames_are_errors() {
        let frame = compress_to_vec("some words ".repeat(999).as_bytes(), CompressionLevel::Fastest);
        assert!(all(&frame[..frame.len() - 9]).is_err());
        assert!(all(b"not a frame").is_err());
        assert!(all(&[&frame[..], b"rest"].concat()).is_err());
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                let _ = all(&damaged); // anything but a panic
            }
        }
    }
}
