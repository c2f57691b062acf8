//! Helpers of the kernel tests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

/// A small generator (xorshift64*) with fixed seeds.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }

    /// Uniform in (-1, 1).
    pub fn symmetric(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Uniform in -127..=127, the ends more often.
    pub fn int8(&mut self) -> i8 {
        match self.below(8) {
            0 => 127,
            1 => -127,
            _ => (self.below(255) as i32 - 127) as i8,
        }
    }
}

/// Canonical packing of codes -1, 0, 1 (rows, cols), from its definition.
pub fn pack_codes(codes: &[i8], cols: usize) -> Vec<u8> {
    let row_bytes = cols.div_ceil(128) * 32;
    let mut out = Vec::new();
    for row in codes.chunks(cols.max(1)) {
        let mut bytes = vec![0b0101_0101u8; row_bytes];
        for (j, &code) in row.iter().enumerate() {
            let shift = j % 128 / 32 * 2;
            let byte = &mut bytes[j / 128 * 32 + j % 32];
            *byte = (*byte & !(3 << shift)) | (((code + 1) as u8) << shift);
        }
        out.extend(bytes);
    }
    out
}
