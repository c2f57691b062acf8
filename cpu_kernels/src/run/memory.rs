//! The buffers of a program.

use std::io::{ErrorKind, Result};

/// Alignment of a buffer: a line of the cache.
const ALIGN: usize = 64;

/// Bytes from which a buffer is a mapping of its own: it goes back to the system when dropped, and grows without a copy where
/// the system can do that.
#[cfg(not(target_family = "wasm"))]
const MAPPED: usize = 1 << 20;

/// A buffer, zeroed at first. What of it is never touched takes no place where the system gives memory page by page.
pub(crate) struct Memory {
    bytes: Bytes,
    start: usize,
    len: usize,
}

enum Bytes {
    Heap(Vec<u8>),
    #[cfg(not(target_family = "wasm"))]
    Mapped(memmap2::MmapMut),
}

impl Bytes {
    fn zeroed(len: usize) -> Result<Bytes> {
        #[cfg(not(target_family = "wasm"))]
        if len >= MAPPED {
            return memmap2::MmapMut::map_anon(len).map(Bytes::Mapped);
        }
        // A larger alignment would be asked for by a call that does not know which memory is zero, and would write all of it.
        let bytes = bytemuck::allocation::try_zeroed_slice_box(len).map_err(|()| ErrorKind::OutOfMemory)?;
        Ok(Bytes::Heap(bytes.into_vec()))
    }

    fn get(&self) -> &[u8] {
        match self {
            Bytes::Heap(bytes) => bytes,
            #[cfg(not(target_family = "wasm"))]
            Bytes::Mapped(bytes) => bytes,
        }
    }

    fn get_mut(&mut self) -> &mut [u8] {
        match self {
            Bytes::Heap(bytes) => bytes,
            #[cfg(not(target_family = "wasm"))]
            Bytes::Mapped(bytes) => bytes,
        }
    }
}

impl Memory {
    /// # Errors
    /// When the system does not give as much.
    pub fn zeroed(len: usize) -> Result<Memory> {
        let bytes = Bytes::zeroed(len.checked_add(ALIGN).ok_or(ErrorKind::OutOfMemory)?)?;
        Ok(Memory { start: bytes.get().as_ptr().align_offset(ALIGN), bytes, len })
    }

    /// Makes it larger; what is new is zero. It stays as it is after an error.
    pub fn grow(&mut self, len: usize) -> Result<()> {
        if len <= self.len {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        if let Bytes::Mapped(bytes) = &mut self.bytes {
            let all = len.checked_add(ALIGN).ok_or(ErrorKind::OutOfMemory)?;
            // SAFETY: nothing holds a reference to the mapping, which may move. It is private and has no file.
            unsafe { bytes.remap(all, memmap2::RemapOptions::new().may_move(true)) }?;
            self.len = len;
            return Ok(());
        }
        let mut grown = Memory::zeroed(len)?;
        grown.get_mut()[..self.len].copy_from_slice(self.get());
        *self = grown;
        Ok(())
    }

    /// Its first byte, aligned to 64, and its size. They hold until it grows.
    pub fn start(&mut self) -> (*mut u8, usize) {
        (self.bytes.get_mut().as_mut_ptr().wrapping_add(self.start), self.len)
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes.get()[self.start..][..self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.get_mut()[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_its_bytes_as_it_grows_and_what_is_new_is_zero() {
        let mut memory = Memory::zeroed(100).unwrap();
        for (i, len) in [100, 5000, 1 << 20, 3 << 20, 9 << 20].into_iter().enumerate() {
            memory.grow(len).unwrap();
            let filled = memory.get().iter().take_while(|b| **b != 0).count();
            assert_eq!(filled, if i == 0 { 0 } else { [100, 5000, 1 << 20, 3 << 20][i - 1] });
            assert!(memory.get()[filled..].iter().all(|b| *b == 0));
            assert_eq!((memory.start().0.align_offset(ALIGN), memory.get().len()), (0, len));
            memory.get_mut().fill(i as u8 + 1);
        }
        memory.grow(7).unwrap();
        assert_eq!(memory.get().len(), 9 << 20);
        for len in [usize::MAX, usize::MAX / 2] {
            assert!(memory.grow(len).is_err() && Memory::zeroed(len).is_err());
        }
        assert_eq!((memory.get().len(), memory.get()[0]), (9 << 20, 5));
    }
}
