//! The cursor with which all readers take bytes. It checks every length against the bytes that remain.

/// Reads little-endian values from a slice. `what` names the thing that is read, for errors.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Number of bytes once all have arrived. It bounds every count.
    total: usize,
    /// A read needed bytes that have not arrived yet.
    starved: bool,
    /// Suffix of the error when the limit is not the end of the file.
    bound: &'static str,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], bound: &'static str) -> Self {
        Self::front(bytes, bytes.len(), bound)
    }

    /// Over the first of `total` bytes.
    pub fn front(bytes: &'a [u8], total: usize, bound: &'static str) -> Self {
        Cursor { bytes, at: 0, total, starved: false, bound }
    }

    /// Whether reading failed only because bytes have not arrived yet.
    pub fn starved(&self) -> bool {
        self.starved
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.total - self.at
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], String> {
        let remaining = self.remaining();
        let n = usize::try_from(n)
            .ok()
            .filter(|n| *n <= remaining)
            .ok_or_else(|| format!("{what} at offset {} needs {n} bytes, {remaining} remain{}", self.at, self.bound))?;
        let Some(taken) = self.bytes[self.at..].get(..n) else {
            self.starved = true;
            return Err(format!("{what} at offset {} has not arrived yet", self.at));
        };
        self.at += n;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        Ok(self.take(N as u64, what)?.try_into().expect("N bytes were taken"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of items of at least `least` bytes each.
    pub fn count(&mut self, least: usize, limit: usize, what: &str) -> Result<usize, String> {
        let (at, n) = (self.at, self.u64(what)?);
        let possible = (self.remaining() / least).min(limit);
        usize::try_from(n)
            .ok()
            .filter(|n| *n <= possible)
            .ok_or_else(|| format!("{what} at offset {at} is {n}: at most {possible} are possible here"))
    }

    /// A string of at most `limit` bytes, so that an error can quote it.
    pub fn name(&mut self, limit: usize, what: &str) -> Result<&'a str, String> {
        let (at, name) = (self.at, self.string(what)?);
        if name.is_empty() || name.len() > limit {
            return Err(format!("{what} at offset {at} has {} bytes: between 1 and {limit} are possible", name.len()));
        }
        Ok(name)
    }

    /// A length in u64 and that many bytes of UTF-8.
    pub fn string(&mut self, what: &str) -> Result<&'a str, String> {
        let at = self.at + 8;
        std::str::from_utf8(self.bytes(what)?)
            .map_err(|e| format!("{what} at offset {at} is not UTF-8 from byte {}", e.valid_up_to()))
    }

    /// A length in u64 and that many bytes.
    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], String> {
        let length = self.u64(what)?;
        self.take(length, what)
    }
}
