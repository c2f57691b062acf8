//! Encodings of dense tensors: their names and sizes, and the values of those that can be read.

use super::q8_0;
use half::{bf16, f16};

pub(super) const F32: u32 = 0;
pub(super) const F16: u32 = 1;
pub(super) const Q8_0: u32 = 8;
const Q4_0: u32 = 2;
const Q4_K: u32 = 12;
const Q6_K: u32 = 14;
const BF16: u32 = 30;

/// Type ids of ggml, names, values of a block and their bytes.
const KINDS: [(u32, &str, u64, u64); 31] = [
    (F32, "f32", 1, 4),
    (F16, "f16", 1, 2),
    (Q4_0, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (Q8_0, "q8_0", 32, 34),
    (9, "q8_1", 32, 36),
    (10, "q2_k", 256, 84),
    (11, "q3_k", 256, 110),
    (Q4_K, "q4_k", 256, 144),
    (13, "q5_k", 256, 176),
    (Q6_K, "q6_k", 256, 210),
    (15, "q8_k", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56),
    (BF16, "bf16", 1, 2),
    (39, "mxfp4", 32, 17),
    (40, "nvfp4", 64, 36),
];

/// The name of a type of ggml, if it is known.
pub(super) fn name(kind: u32) -> Option<&'static str> {
    KINDS.iter().find(|(id, ..)| *id == kind).map(|(_, name, ..)| *name)
}

/// Bytes of `elements` values in rows of `dim`; none for a type that is not known.
pub(super) fn bytes(kind: u32, elements: u64, dim: u64) -> Option<Result<u64, String>> {
    let (_, name, block, bytes) = KINDS.into_iter().find(|(id, ..)| *id == kind)?;
    if !dim.is_multiple_of(block) {
        return Some(Err(format!("rows of {dim} values in {name}: must be a multiple of {block}")));
    }
    let all = (elements / block).checked_mul(bytes);
    Some(all.ok_or_else(|| format!("{elements} values in {name} are too many")))
}

/// Whether [`halves`] reads this type.
pub(super) fn is_read(kind: u32) -> bool {
    [F16, BF16, Q8_0, Q6_K, Q4_K, Q4_0].contains(&kind)
}

/// The values of whole blocks as f16 ones, rounded where f16 does not hold them. The error names the first that is not finite.
///
/// # Panics
/// For a type that is not read.
pub(super) fn halves(kind: u32, bytes: &[u8]) -> Result<Vec<f16>, String> {
    if kind == F16 {
        return finite(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect());
    }
    let values: Vec<f32> = match kind {
        BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Q8_0 => {
            let table = q8_0::decode(bytes)?;
            table.codes.iter().enumerate().map(|(i, code)| table.scales[i / 32] * f32::from(*code)).collect()
        }
        Q4_0 => bytes.as_chunks().0.iter().flat_map(q4_0).collect(),
        Q4_K => bytes.as_chunks().0.iter().flat_map(q4_k).collect(),
        Q6_K => bytes.as_chunks().0.iter().flat_map(q6_k).collect(),
        other => unreachable!("type {other} is not read"),
    };
    finite(values.into_iter().map(f16::from_f32).collect())
}

fn finite(values: Vec<f16>) -> Result<Vec<f16>, String> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(format!("value {i} is not a finite number of f16")),
        None => Ok(values),
    }
}

fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

/// An f16 scale, and 32 values of 4 bits with 8 added: the first half in the low bits.
fn q4_0(block: &[u8; 18]) -> [f32; 32] {
    let scale = half(block[0], block[1]);
    std::array::from_fn(|i| scale * (f32::from(block[2 + i % 16] >> (i / 16 * 4) & 15) - 8.0))
}

/// Two f16 factors, 8 scales and 8 minima of 6 bits in 12 bytes, and 256 values of 4 bits. Groups of 32 share a scale and a minimum; the
/// low bits of 32 bytes are one group and the high bits the next.
fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let (scale, minimum, packed) = (half(block[0], block[1]), half(block[2], block[3]), &block[4..16]);
    let six = |g: usize| match g {
        0..4 => [packed[g] & 63, packed[g + 4] & 63],
        _ => [packed[g + 4] & 15 | packed[g - 4] >> 6 << 4, packed[g + 4] >> 4 | packed[g] >> 6 << 4],
    };
    std::array::from_fn(|i| {
        let g = i / 32;
        let [by, less] = six(g).map(f32::from);
        let value = block[16 + g / 2 * 32 + i % 32] >> (g % 2 * 4) & 15;
        scale * by * f32::from(value) - minimum * less
    })
}

/// The low 4 and the high 2 bits of 256 values with 32 added, an i8 scale for each 16, and an f16 factor. Of 128 values, 64 bytes hold the
/// low bits, those of the last 64 in the high half, and 32 bytes the high bits, each of four values 32 apart.
fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let factor = half(block[208], block[209]);
    std::array::from_fn(|i| {
        let (half, j) = (i / 128, i % 128);
        let low = block[half * 64 + j % 64] >> (j / 64 * 4) & 15;
        let high = block[128 + half * 32 + j % 32] >> (j / 32 * 2) & 3;
        let scale = f32::from(block[192 + i / 16].cast_signed());
        factor * scale * (f32::from(low | high << 4) - 32.0)
    })
}

#[cfg(test)]
#[cfg(feature = "native")]
mod tests {
    use super::*;

    /// Blocks of random bytes, and their values by the Python package `gguf`.
    #[test]
    fn blocks_have_the_values_of_ggml() {
        let file = std::fs::read("tests/foreign/quants.safetensors").unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        for kind in [Q4_0, Q8_0, Q4_K, Q6_K, BF16] {
            let [raw, want] =
                ["bytes", "values"].map(|part| file.tensor(&format!("{kind}.{part}")).unwrap().data().to_vec());
            let want: Vec<f32> = want.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let have = halves(kind, &raw).unwrap();
            assert_eq!(bytes(kind, want.len() as u64, want.len() as u64), Some(Ok(raw.len() as u64)), "{kind}");
            let same = have.iter().zip(&want).all(|(have, want)| *have == f16::from_f32(*want));
            assert!(same && have.len() == want.len(), "type {kind}");
        }
    }
}
