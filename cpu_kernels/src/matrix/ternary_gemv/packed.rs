//! Ternary weights in the order in which a kernel reads them.
//!
//! A tile is 16 or 32 outputs, all inputs; the last one is filled up with outputs that are never stored. Codes are
//! 2 bits, value = code - 1, as in canonical packing. Scales are (tiles, groups, outputs of a tile), as f16 where that is
//! exact: trained ones are.

use crate::matrix::{fits, packed_row_bytes, scratch::Line};
use crate::{Level, simd::isa::Lanes};
use half::f16;
use std::{fmt, str::FromStr};

/// An order of ternary weights in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Tiles of 16 outputs. 64 bytes are 16 inputs: a 32-bit word an output, whose byte b holds inputs b, b + 4, b + 8,
    /// b + 12 in bits 0-1, 2-3, 4-5, 6-7. For multiply-adds of bytes (`vpdpbusd`, `vpmaddubsw`).
    Rows16,
    /// Tiles of 32 outputs. 32 bytes are 4 inputs: a byte an output, input 0 in the lowest bits; outputs 0, 16, 1, 17...
    /// For table look-up (`vpshufb`, `i8x16.swizzle`): a nibble is a pair of weights.
    Pairs32,
    /// As stored: runs at every level, by way of [`crate::matrix::ternary_gemm`].
    Canonical,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 3] = [Self::Rows16, Self::Pairs32, Self::Canonical];

    /// The layouts worth trying at a level. [`Layout::Canonical`] runs at all of them.
    pub fn of(level: Level) -> &'static [Self] {
        match level {
            Level::Avx512 | Level::Avx2 | Level::Neon | Level::Dotprod => &[Self::Rows16, Self::Pairs32],
            Level::Simd128 => &[Self::Pairs32],
            Level::Scalar => &[Self::Canonical],
        }
    }

    /// Whether there is a kernel for this layout at a level.
    pub fn runs_at(self, level: Level) -> bool {
        self == Self::Canonical || level != Level::Scalar
    }

    /// The name used on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows16 => "rows16",
            Self::Pairs32 => "pairs32",
            Self::Canonical => "canonical",
        }
    }

    /// Outputs of a tile.
    fn tile(self) -> usize {
        match self {
            Self::Rows16 => 16,
            Self::Pairs32 => 32,
            Self::Canonical => 1,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|l| l.name().eq_ignore_ascii_case(s))
            .ok_or_else(|| format!("unknown layout `{s}` ({})", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A constant ternary matrix (outs, dim) in one of the layouts.
#[derive(Clone, Debug)]
pub struct PackedTernary {
    layout: Layout,
    outs: usize,
    dim: usize,
    group: usize,
    codes: Vec<Line>,
    scales: Scales,
}

#[derive(Clone, Debug)]
pub(super) enum Scales {
    /// f16 bits.
    Half(Vec<Line>),
    Single(Vec<Line>),
}

impl PackedTernary {
    /// The longest group: bounds the integer sums inside the kernels.
    pub const MAX_GROUP: usize = 1 << 16;

    /// Packs canonical `codes` (outs, ceil(dim / 128) * 32) and `scales` (outs, dim / group). `group` is a multiple of 32
    /// that divides `dim`, at most [`Self::MAX_GROUP`].
    pub fn new(layout: Layout, codes: &[u8], scales: &[f32], outs: usize, dim: usize, group: usize) -> Self {
        assert!(
            group > 0 && group.is_multiple_of(32) && dim.is_multiple_of(group) && group <= Self::MAX_GROUP,
            "group {group} of {dim} inputs"
        );
        let (row_bytes, groups) = (packed_row_bytes(dim), dim / group);
        assert!(fits(codes.len(), outs, row_bytes, row_bytes), "codes: {} for ({outs}, {dim})", codes.len());
        assert!(fits(scales.len(), outs, groups, groups), "scales: {} for ({outs}, {dim})", scales.len());
        let (codes, scales) = (&codes[..outs * row_bytes], &scales[..outs * groups]);
        let codes = match layout {
            Layout::Rows16 => rows16(codes, outs, dim),
            Layout::Pairs32 => pairs32(codes, outs, dim),
            Layout::Canonical => {
                let mut to = lines(codes.len());
                bytemuck::cast_slice_mut(&mut to)[..codes.len()].copy_from_slice(codes);
                to
            }
        };
        Self { layout, outs, dim, group, codes, scales: Scales::new(layout, scales, outs, groups) }
    }

    /// The order of the codes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Outputs: rows of the matrix.
    pub fn outs(&self) -> usize {
        self.outs
    }

    /// Inputs: columns of the matrix.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Consecutive inputs that share a scale.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Memory it takes, and what a pass over it reads.
    pub fn bytes(&self) -> usize {
        let (Scales::Half(scales) | Scales::Single(scales)) = &self.scales;
        (self.codes.len() + scales.len()) * size_of::<Line>()
    }

    pub(super) fn tiles(&self) -> usize {
        self.outs.div_ceil(self.layout.tile())
    }

    pub(super) fn codes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.codes)
    }

    pub(super) fn scales(&self) -> ScalePtr {
        match &self.scales {
            Scales::Half(scales) => ScalePtr::Half(scales.as_ptr().cast()),
            Scales::Single(scales) => ScalePtr::Single(scales.as_ptr().cast()),
        }
    }

    /// Codes and scales as they were given.
    pub(super) fn canonical(&self) -> Option<(&[u8], &[f32])> {
        match &self.scales {
            Scales::Single(scales) if self.layout == Layout::Canonical => {
                Some((self.codes(), bytemuck::cast_slice(scales)))
            }
            _ => None,
        }
    }
}

/// Scales (tiles, groups, outputs of a tile), as the kernels read them.
#[derive(Clone, Copy)]
pub(super) enum ScalePtr {
    Half(*const u16),
    Single(*const f32),
}

impl ScalePtr {
    /// A register of scales.
    ///
    /// # Safety
    /// There are that many from `at` on.
    #[inline(always)]
    pub unsafe fn load<S: Lanes>(self, at: usize) -> S::F {
        // SAFETY: by contract.
        unsafe {
            match self {
                ScalePtr::Half(s) => S::load_half(s.add(at)),
                ScalePtr::Single(s) => S::load(s.add(at)),
            }
        }
    }
}

impl Scales {
    fn new(layout: Layout, scales: &[f32], outs: usize, groups: usize) -> Self {
        let tile = layout.tile();
        let at = |o: usize, g: usize| (o / tile * groups + g) * tile + o % tile;
        let each = || (0..outs).flat_map(|o| (0..groups).map(move |g| (o, g))).zip(scales);
        let len = outs.next_multiple_of(tile) * groups;
        if layout != Layout::Canonical && scales.iter().all(|&s| to_f16(s).is_some()) {
            let mut to = lines(2 * len);
            let halves = bytemuck::cast_slice_mut::<_, u16>(&mut to);
            each().for_each(|((o, g), &s)| halves[at(o, g)] = f16::from_f32(s).to_bits());
            return Scales::Half(to);
        }
        let mut to = lines(4 * len);
        let singles = bytemuck::cast_slice_mut::<_, f32>(&mut to);
        each().for_each(|((o, g), &s)| singles[at(o, g)] = s);
        Scales::Single(to)
    }
}

/// `x` as f16, if it is one, and finite.
fn to_f16(x: f32) -> Option<f16> {
    let half = f16::from_f32(x);
    (half.is_finite() && half.to_f32().to_bits() == x.to_bits()).then_some(half)
}

/// Zeroed memory for at least `bytes` bytes.
fn lines(bytes: usize) -> Vec<Line> {
    vec![bytemuck::Zeroable::zeroed(); bytes.div_ceil(size_of::<Line>())]
}

/// A row of canonical codes as words: inputs m..m + 4 of a run of 128 are in the bytes of word m % 32 / 4, in the bits of
/// plane m / 32.
fn inputs(row: &[u8], k: usize) -> u32 {
    let at = k / 128 * 32 + k % 32;
    let word = u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    word >> (k % 128 / 32 * 2) & 0x0303_0303
}

fn rows16(codes: &[u8], outs: usize, dim: usize) -> Vec<Line> {
    let mut to = lines(outs.next_multiple_of(16) * dim / 4);
    let words: &mut [u32] = bytemuck::cast_slice_mut(&mut to);
    for (o, row) in codes.chunks_exact(packed_row_bytes(dim).max(1)).enumerate() {
        let tile = &mut words[o / 16 * dim..][..dim];
        for (k, to) in tile[o % 16..].iter_mut().step_by(16).enumerate() {
            *to = (0..4).map(|plane| inputs(row, 16 * k + 4 * plane) << (2 * plane)).sum();
        }
    }
    to
}

fn pairs32(codes: &[u8], outs: usize, dim: usize) -> Vec<Line> {
    let mut to = lines(outs.next_multiple_of(32) * dim / 4);
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut to);
    for (o, row) in codes.chunks_exact(packed_row_bytes(dim).max(1)).enumerate() {
        let tile = &mut bytes[o / 32 * dim * 8..][..dim * 8];
        let lane = o % 16 * 2 + o % 32 / 16;
        for (k, to) in tile[lane..].iter_mut().step_by(32).enumerate() {
            let codes = inputs(row, 4 * k);
            *to = (codes | codes >> 6 | codes >> 12 | codes >> 18) as u8;
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for layout in Layout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
        assert!("rows7".parse::<Layout>().is_err());
    }

    #[test]
    fn halves_are_exact() {
        for (x, want) in [
            (0.0, Some(0)),
            (1.0, Some(0x3c00)),
            (-2.0, Some(0xc000)),
            (65504.0, Some(0x7bff)),
            (65520.0, None),
            (2f32.powi(-14), Some(0x0400)),
            (2f32.powi(-24), Some(1)),
            (1023.0 * 2f32.powi(-24), Some(0x03ff)),
            (2f32.powi(-25), None),
            (0.1, None),
            (f32::INFINITY, None),
            (f32::NAN, None),
        ] {
            assert_eq!(to_f16(x).map(f16::to_bits), want, "{x}");
        }
    }
}
