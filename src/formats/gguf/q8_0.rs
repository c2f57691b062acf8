//! `q8_0` (id 8), in which other programs store tables: blocks of 32 values, an f16 scale and 32 int8 codes. A value is
//! scale * code; f32 holds that product exactly, so these are the values that every reader computes with.

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

/// The values of whole blocks.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let mut values = Vec::with_capacity(bytes.len() / 34 * 32);
    for (i, [low, high, codes @ ..]) in bytes.as_chunks::<34>().0.iter().enumerate() {
        let scale = f16::from_le_bytes([*low, *high]).to_f32();
        if !scale.is_finite() {
            return Err(format!("scale {i} is {scale}: a scale is a finite f16 value"));
        }
        values.extend(codes.iter().map(|code| scale * f32::from(code.cast_signed())));
    }
    Ok(values)
}
