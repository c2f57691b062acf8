//! The buffers of a program.

use std::io::{ErrorKind, Result};

/// Alignment of a buffer: a line of the cache.
const ALIGN: usize = 64;

/// A buffer, zeroed at first. What of it is never touched takes no place where the system gives memory page by page.
pub(crate) struct Memory {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    /// # Errors
    /// When the system does not give as much.
    pub fn zeroed(len: usize) -> Result<Memory> {
        // A larger alignment would be asked for by a call that does not know which memory is zero, and would write all of it.
        let bytes = len.checked_add(ALIGN).and_then(|n| bytemuck::allocation::try_zeroed_slice_box(n).ok());
        let bytes: Vec<u8> = bytes.ok_or(ErrorKind::OutOfMemory)?.into_vec();
        Ok(Memory { start: bytes.as_ptr().align_offset(ALIGN), bytes, len })
    }

    /// Makes it larger; what is new is zero. It stays as it is after an error.
    pub fn grow(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            let mut grown = Memory::zeroed(len)?;
            grown.get_mut()[..self.len].copy_from_slice(self.get());
            *self = grown;
        }
        Ok(())
    }

    /// Its first byte, aligned to 64, and its size. They hold until it grows.
    pub fn start(&mut self) -> (*mut u8, usize) {
        (self.bytes.as_mut_ptr().wrapping_add(self.start), self.len)
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}
