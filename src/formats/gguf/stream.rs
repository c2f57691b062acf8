//! Reads a file while it arrives: the head as soon as it is complete, then each tensor in the order of the file. Bytes that
//! were read are dropped, so that the whole file is never in memory.

use super::super::Tensor;
use super::{FIRST_LOOK, Head};

/// A file that arrives in pieces.
pub struct Stream {
    /// Size of the file, once it is known.
    total: Option<u64>,
    head: Option<Head>,
    /// Indices into the head's places, in the order of the file.
    order: Vec<usize>,
    /// Number of tensors that were read.
    taken: usize,
    /// Bytes that have arrived and are kept, their offset in the file, and how many of them were read.
    pending: Vec<u8>,
    start: u64,
    used: usize,
    look_at: usize,
}

impl Stream {
    /// A file of `total` bytes, or of unknown size.
    pub fn new(total: Option<u64>) -> Stream {
        Stream {
            total,
            head: None,
            order: Vec::new(),
            taken: 0,
            pending: Vec::new(),
            start: 0,
            used: 0,
            look_at: FIRST_LOOK,
        }
    }

    /// Number of bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    /// The head, once it is complete.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Adds the next bytes of the file. The error says what is wrong with the file.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), String> {
        if let Some(total) = self.total.filter(|total| self.received() + chunk.len() as u64 > *total) {
            return Err(format!("more than the {total} bytes of the file have arrived"));
        }
        self.pending.drain(..self.used);
        self.start += self.used as u64;
        self.used = 0;
        self.pending.extend_from_slice(chunk);
        self.look()
    }

    /// Declares the file complete.
    pub fn end(&mut self) -> Result<(), String> {
        self.total.get_or_insert(self.start + self.pending.len() as u64);
        self.look()
    }

    fn look(&mut self) -> Result<(), String> {
        let all = self.total == Some(self.received());
        if self.head.is_some() || !all && self.pending.len() < self.look_at {
            return Ok(());
        }
        self.look_at = 2 * self.pending.len();
        self.head = Head::parse(&self.pending, self.total.unwrap_or(u64::MAX))?;
        if let Some(head) = &self.head {
            if let Some(numbers) = head.numbers() {
                let name = &numbers.name;
                return Err(format!(
                    "tensor {name:?} cannot be read from a stream: write the model as GGUF with this program"
                ));
            }
            self.order = (0..head.places.len()).collect();
            self.order.sort_by_key(|i| head.places[*i].offset);
        }
        Ok(())
    }

    /// The next tensor, if it is complete. The error names the tensor.
    pub fn next_tensor(&mut self) -> Result<Option<Tensor>, String> {
        let Some(head) = &self.head else { return Ok(None) };
        let Some(place) = self.order.get(self.taken).map(|i| &head.places[*i]) else {
            self.used = self.pending.len();
            return Ok(None);
        };
        // Sizes beyond usize cannot have arrived yet.
        let from = usize::try_from(place.offset - self.start).unwrap_or(usize::MAX);
        let bytes = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        let Some(part) = self.pending.get(from..).and_then(|rest| rest.get(..bytes)) else {
            return Ok(None);
        };
        let tensor = place.decode(part, 1.0)?;
        self.used = from + part.len();
        self.taken += 1;
        Ok(Some(tensor))
    }

    /// Checks that every tensor was read.
    pub fn finish(&self) -> Result<(), String> {
        let have = self.received();
        let of = self.total.filter(|total| *total != have).map_or(String::new(), |total| format!(" of its {total}"));
        match &self.head {
            Some(head) if self.taken == head.places.len() => Ok(()),
            _ => Err(format!("the file is cut off: {have}{of} bytes have arrived")),
        }
    }
}
