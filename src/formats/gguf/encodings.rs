//! Encodings of ternary matrices.
//!
//! - `q1_58` (id 100): four consecutive trits in each byte, low bits first (00 = 0, 01 = +1, 11 = -1, 10 is invalid), then one
//!   f32 scale for each group. Both are row-major. The key `nanotern.group_size` is the size of a group.
//! - `tq2_0` (id 35): blocks of 256 weights, each with 64 bytes of codes in canonical order and an f16 scale.
//! - `tq1_0` (id 34): blocks of 256 weights, each with 48 bytes of 5 trits, 4 bytes of 4 trits and an f16 scale. A byte holds its
//!   trits as a fraction of 3^5 in 256ths.
//!
//! A scale of the last two covers exactly 256 weights, so they can only hold groups of 256.
//!
//! - `i2_s` (id 36) of bitnet.cpp, as its x86 builds and its converter write it: all weights in a row, in runs of 128 of 32 bytes
//!   each. Byte b of a run holds the weights b, 32 + b, 64 + b and 96 + b, as code 0, 1 or 2 (3 is invalid), in its bits 6, 4, 2 and
//!   0. Then come one f32 scale for the whole matrix and 28 bytes of no meaning.

use super::super::{Ternary, check_scales};
use crate::model::Scales;
use crate::ops::packed_row_bytes;
use half::f16;
use std::fmt;

/// Weights in a block of the registered encodings.
const BLOCK: usize = 256;
/// Weights in a run of 32 bytes.
const RUN: usize = 128;
/// Bytes behind the codes of an `i2_s` matrix: its scale, and what has no meaning.
const TAIL: usize = 32;
/// The low bit of every 2-bit cell.
const LOW: u32 = 0x5555_5555;

/// How a GGUF file holds ternary matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any group size.
    #[default]
    Q1_58,
    /// Groups of 256; 2 bits for each weight.
    Tq2_0,
    /// Groups of 256; 1.6 bits for each weight.
    Tq1_0,
    /// One scale for a matrix; 2 bits for each weight.
    I2S,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Q1_58 => "q1_58",
            Format::Tq2_0 => "tq2_0",
            Format::Tq1_0 => "tq1_0",
            Format::I2S => "i2_s",
        })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("unknown format `{name}`: expected q1_58, tq2_0, tq1_0 or i2_s");
        Format::ALL.into_iter().find(|f| f.to_string() == name).ok_or_else(unknown)
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 4] = [Format::Q1_58, Format::Tq2_0, Format::Tq1_0, Format::I2S];

    /// The type id in the file.
    pub fn id(self) -> u32 {
        match self {
            Format::Q1_58 => 100,
            Format::Tq2_0 => 35,
            Format::Tq1_0 => 34,
            Format::I2S => 36,
        }
    }

    /// The format with that type id.
    pub fn from_id(id: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.id() == id)
    }

    /// Checks that this format can hold such scales, of groups of that size.
    pub fn check_scales(self, group: usize, scales: Scales) -> Result<(), String> {
        match (self, scales) {
            (Format::I2S, Scales::Tensor) | (Format::Q1_58, Scales::Group) => Ok(()),
            (Format::I2S, Scales::Group) => {
                Err(format!("{self} has one scale for a matrix and cannot hold groups of {group} inputs"))
            }
            (_, Scales::Tensor) => Err(format!("{self} has scales for groups; one for a matrix is held by i2_s only")),
            _ if group == BLOCK => Ok(()),
            _ => Err(format!(
                "group_size is {group}, but {self} has one scale for {BLOCK} weights and holds group_size 256 only"
            )),
        }
    }

    /// The groups of a matrix in a file. In one of other programs these encodings may hold a matrix with one scale.
    pub fn stored(self, (group, scales): (usize, Scales)) -> (usize, Scales) {
        match (self, scales) {
            (Format::Tq1_0 | Format::Tq2_0, Scales::Tensor) => (BLOCK, Scales::Group),
            _ => (group, scales),
        }
    }

    /// Size in bytes of `rows` rows of `dim` weights. The error names what does not fit.
    pub fn bytes(self, rows: u64, dim: u64, group: u64) -> Result<u64, String> {
        let block = match self {
            Format::Q1_58 | Format::I2S => 32,
            _ => BLOCK as u64,
        };
        if !dim.is_multiple_of(block) {
            return Err(format!("rows of {dim} weights in {self}: must be a multiple of {block}"));
        }
        let row = match self {
            Format::Q1_58 if group == 0 || !dim.is_multiple_of(group) => {
                return Err(format!("rows of {dim} weights in groups of {group}"));
            }
            Format::Q1_58 => (dim / group).checked_mul(4).and_then(|scales| scales.checked_add(dim / 4)),
            // The product's low bits are right even where it is too large.
            Format::I2S if !rows.wrapping_mul(dim).is_multiple_of(RUN as u64) => {
                return Err(format!("{rows} rows of {dim} weights in {self}: all must be a multiple of {RUN}"));
            }
            Format::I2S => Some(dim / 4),
            Format::Tq2_0 => (dim / block).checked_mul(66),
            Format::Tq1_0 => (dim / block).checked_mul(54),
        };
        let all = row.and_then(|row| row.checked_mul(rows));
        let all = if self == Format::I2S { all.and_then(|codes| codes.checked_add(TAIL as u64)) } else { all };
        all.ok_or_else(|| format!("{rows} rows of {dim} weights are too many"))
    }

    /// Encodes a matrix whose groups were checked.
    pub fn encode(self, t: &Ternary) -> Vec<u8> {
        let mut out = Vec::new();
        if self == Format::Q1_58 {
            for row in t.codes.chunks_exact(packed_row_bytes(t.dim)) {
                let start = out.len();
                row.as_chunks().0.iter().for_each(|run| out.extend_from_slice(&to_q1_58(run)));
                out.truncate(start + t.dim / 4);
            }
            out.extend(t.scales.iter().flat_map(|s| s.to_le_bytes()));
            return out;
        }
        if self == Format::I2S {
            out = to_i2_s(&t.codes, t.outs, t.dim);
            out.extend(t.scales[0].to_le_bytes());
            out.resize(out.len().next_multiple_of(TAIL), 0);
            return out;
        }
        for (codes, scale) in t.codes.as_chunks().0.iter().zip(&t.scales) {
            match self {
                Format::Tq1_0 => out.extend_from_slice(&to_tq1_0(codes)),
                _ => out.extend_from_slice(codes),
            }
            out.extend_from_slice(&f16::from_f32(*scale).to_le_bytes());
        }
        out
    }

    /// Decodes a matrix (outs, dim). The error names the byte or scale that is invalid.
    ///
    /// # Panics
    /// When the length of `bytes` is not [`Format::bytes`].
    pub fn decode(
        self,
        bytes: &[u8],
        (outs, dim): (usize, usize),
        (group, scales): (usize, Scales),
    ) -> Result<Ternary, String> {
        self.check_scales(group, scales)?;
        assert_eq!(Ok(bytes.len() as u64), self.bytes(outs as u64, dim as u64, group as u64), "{self} ({outs}, {dim})");
        let mut t =
            Ternary { codes: Vec::with_capacity(outs * packed_row_bytes(dim)), scales: vec![], outs, dim, group };
        match self {
            Format::I2S => {
                let (runs, tail) = bytes.split_at(bytes.len() - TAIL);
                t.codes = from_i2_s(runs, outs, dim).map_err(|b| invalid(b, runs[b]))?;
                t.scales.push(f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
            }
            Format::Q1_58 => {
                let (trits, scales) = bytes.split_at(outs * (dim / 4));
                t.scales = scales.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                for (i, row) in trits.chunks_exact(dim / 4).enumerate() {
                    for (k, part) in row.chunks(32).enumerate() {
                        let mut run = [0; 32];
                        run[..part.len()].copy_from_slice(part);
                        let codes = from_q1_58(&run).map_err(|b| invalid(i * (dim / 4) + 32 * k + b, run[b]))?;
                        t.codes.extend_from_slice(&codes);
                    }
                }
            }
            Format::Tq2_0 => {
                for (i, block) in bytes.as_chunks::<66>().0.iter().enumerate() {
                    if let Some(b) = block[..64].iter().position(|b| b & b >> 1 & 0x55 != 0) {
                        return Err(invalid(66 * i + b, block[b]));
                    }
                    t.codes.extend_from_slice(&block[..64]);
                    t.scales.push(f16::from_le_bytes([block[64], block[65]]).to_f32());
                }
            }
            Format::Tq1_0 => {
                for (i, block) in bytes.as_chunks::<54>().0.iter().enumerate() {
                    let codes = from_tq1_0(block).map_err(|b| invalid(54 * i + b, block[b]))?;
                    t.codes.extend_from_slice(&codes);
                    t.scales.push(f16::from_le_bytes([block[52], block[53]]).to_f32());
                }
            }
        }
        check_scales(&t.scales, scales)?;
        Ok(t)
    }
}

fn invalid(at: usize, byte: u8) -> String {
    format!("byte {at} is {byte:#04x}, which holds an invalid trit")
}

/// Transposes 4 x 4 cells of 2 bits: cell (p, k) at bit 8p + 2k goes to bit 8k + 2p.
fn transpose(x: u32) -> u32 {
    let swap = |x: u32, distance: u32, mask: u32| {
        let t = (x >> distance ^ x) & mask;
        x ^ t ^ t << distance
    };
    swap(swap(x, 6, 0x00cc_00cc), 12, 0x0000_f0f0)
}

/// 128 weights: the four quarters of a canonical run become consecutive bytes, and each code becomes its value modulo 4.
fn to_q1_58(run: &[u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    for (q, codes) in run.as_chunks().0.iter().enumerate() {
        let x = transpose(u32::from_le_bytes(*codes));
        let low = !x & LOW;
        for (p, byte) in (x ^ LOW ^ low << 1).to_le_bytes().into_iter().enumerate() {
            out[8 * p + q] = byte;
        }
    }
    out
}

/// The inverse of [`to_q1_58`]. The error is the index of the first byte with an invalid trit.
fn from_q1_58(run: &[u8; 32]) -> Result<[u8; 32], usize> {
    if let Some(at) = run.iter().position(|b| b >> 1 & !b & 0x55 != 0) {
        return Err(at);
    }
    let mut out = [0; 32];
    for (q, codes) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let x = u32::from_le_bytes([0, 1, 2, 3].map(|p| run[8 * p + q]));
        *codes = transpose(x ^ LOW ^ (x & LOW) << 1).to_le_bytes();
    }
    Ok(out)
}

/// A byte with its four cells of 2 bits in the other order.
fn reversed(byte: u8) -> u8 {
    let bits = byte.reverse_bits();
    bits << 1 & 0xaa | bits >> 1 & 0x55
}

/// Canonical rows of codes, as runs of all weights.
fn to_i2_s(codes: &[u8], outs: usize, dim: usize) -> Vec<u8> {
    if dim.is_multiple_of(RUN) {
        return codes.iter().map(|byte| reversed(*byte)).collect();
    }
    let mut out = vec![0; outs * dim / 4];
    for i in 0..outs * dim {
        let (byte, shift) = position(i % dim);
        let code = codes[i / dim * packed_row_bytes(dim) + byte] >> shift & 3;
        let (byte, shift) = position(i);
        out[byte] |= code << (6 - shift);
    }
    out
}

/// The inverse of [`to_i2_s`]. The error is the index of the first byte with an invalid trit.
fn from_i2_s(runs: &[u8], outs: usize, dim: usize) -> Result<Vec<u8>, usize> {
    if let Some(at) = runs.iter().position(|b| b & b >> 1 & 0x55 != 0) {
        return Err(at);
    }
    if dim.is_multiple_of(RUN) {
        return Ok(runs.iter().map(|byte| reversed(*byte)).collect());
    }
    // A row that does not fill its last run is padded with zeros.
    let mut codes = vec![LOW as u8; outs * packed_row_bytes(dim)];
    for i in 0..outs * dim {
        let (byte, shift) = position(i);
        let code = runs[byte] >> (6 - shift) & 3;
        let (byte, shift) = position(i % dim);
        let byte = &mut codes[i / dim * packed_row_bytes(dim) + byte];
        *byte = *byte & !(3 << shift) | code << shift;
    }
    Ok(codes)
}

/// First weight, distance between weights, and number of trits of a byte of a tq1_0 block.
fn trits(byte: usize) -> (usize, usize, usize) {
    match byte {
        0..32 => (byte, 32, 5),
        32..48 => (160 + byte - 32, 16, 5),
        _ => (240 + byte - 48, 4, 4),
    }
}

/// Canonical position of weight `i` of a row or a block: byte and shift.
fn position(i: usize) -> (usize, usize) {
    (i / 128 * 32 + i % 32, i % 128 / 32 * 2)
}

/// The byte of five digits of base 3, given as their number: the fraction n / 3^5 in 256ths, rounded up.
fn fraction(n: usize) -> u8 {
    ((n * 256).div_ceil(243)) as u8
}

fn to_tq1_0(codes: &[u8; 64]) -> [u8; 52] {
    std::array::from_fn(|b| {
        let (first, step, count) = trits(b);
        let digit = |n: usize| {
            let (byte, shift) = position(first + n * step);
            if n < count { usize::from(codes[byte] >> shift & 3) } else { 0 }
        };
        fraction((0..5).fold(0, |number, n| 3 * number + digit(n)))
    })
}

/// The error is the index of the first byte that encodes no trits.
fn from_tq1_0(block: &[u8; 54]) -> Result<[u8; 64], usize> {
    let mut codes = [0; 64];
    for (b, byte) in block[..52].iter().enumerate() {
        let (first, step, count) = trits(b);
        let mut number = usize::from(*byte) * 243 / 256;
        if fraction(number) != *byte || count == 4 && number % 3 != 0 {
            return Err(b);
        }
        for n in (0..5).rev() {
            if n < count {
                let (byte, shift) = position(first + n * step);
                codes[byte] |= ((number % 3) as u8) << shift;
            }
            number /= 3;
        }
    }
    Ok(codes)
}
