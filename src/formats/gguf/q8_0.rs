//! `q8_0` (id 8), an encoding of tables: blocks of 32 values, an f16 scale and 32 int8 codes; a value is scale * code.

use super::super::Int8;
use half::f16;

/// Values in a block.
const BLOCK: u64 = 32;

/// Bytes of `elements` values in rows of `dim`.
pub(super) fn bytes(elements: u64, dim: u64) -> Result<u64, String> {
    if !dim.is_multiple_of(BLOCK) {
        return Err(format!("rows of {dim} values in q8_0: must be a multiple of {BLOCK}"));
    }
    (elements / BLOCK).checked_mul(BLOCK + 2).ok_or_else(|| format!("{elements} values in q8_0 are too many"))
}

/// Decodes whole blocks.
pub(super) fn decode(bytes: &[u8]) -> Result<Int8, String> {
    let blocks = bytes.as_chunks::<34>().0;
    let mut table = Int8 { codes: Vec::with_capacity(32 * blocks.len()), scales: Vec::with_capacity(blocks.len()) };
    for (i, [low, high, codes @ ..]) in blocks.iter().enumerate() {
        let scale = f16::from_le_bytes([*low, *high]).to_f32();
        if !scale.is_finite() {
            return Err(format!("scale {i} is {scale}: a scale is a finite f16 value"));
        }
        table.scales.push(scale);
        table.codes.extend(codes.iter().map(|code| code.cast_signed()));
    }
    Ok(table)
}

pub(super) fn encode(table: &Int8) -> Vec<u8> {
    let mut out = Vec::with_capacity(34 * table.scales.len());
    for (codes, scale) in table.codes.chunks_exact(BLOCK as usize).zip(&table.scales) {
        out.extend(f16::from_f32(*scale).to_le_bytes());
        out.extend(codes.iter().map(|code| code.cast_unsigned()));
    }
    out
}
