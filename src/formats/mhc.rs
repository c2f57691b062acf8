//! `.mhc`: the residual mixing of a model (mHC-lite), by itself.
//!
//! Little-endian. Header: u32 magic 0x6D484321, version (2 is written, 1 is read too), number of sub-layers, streams.
//! Then for each sub-layer, in the order attn0, ffn0, attn1...: with 2 streams nine f32 (`alpha_logit, pre_logits[2],
//! pre_bias[2], post_logits[2], post_bias[2]`); with 4 forty (`res_logits[24]`, then the same four of 4 each).

use super::cursor::Cursor;
use crate::model::mixing_params;

const MAGIC: u32 = 0x6D48_4321;
const VERSION: u32 = 2;
/// Largest number of sub-layers of a model.
const MAX_SUBLAYERS: u32 = 512;
/// Largest distance of the sum of a row or column of H_res from 1.
const TOLERANCE: f64 = 1e-5;

/// The residual mixing of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct MhcFile {
    /// 2 or 4.
    pub streams: usize,
    /// Parameters of each sub-layer, in the order of the file.
    pub sublayers: Vec<Vec<f32>>,
}

/// Number of parameters of a sub-layer, if there can be so many streams.
fn params_of(streams: u32) -> Result<usize, String> {
    match mixing_params(streams as usize) {
        0 => Err(format!("{streams} streams at offset 12: 2 or 4 are possible")),
        n => Ok(n),
    }
}

/// Number of streams that so many parameters of a sub-layer mix.
fn streams_of(params: usize) -> usize {
    [2, 4].into_iter().find(|streams| mixing_params(*streams) == params).expect("parameters of 2 or 4 streams")
}

impl MhcFile {
    /// From the parameters of each sub-layer; none if there are no sub-layers.
    pub(super) fn new(sublayers: Vec<Vec<f32>>) -> Option<MhcFile> {
        let streams = streams_of(sublayers.first()?.len());
        Some(MhcFile { streams, sublayers })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names what is wrong, and its offset.
    pub fn parse(bytes: &[u8]) -> Result<MhcFile, String> {
        let mut c = Cursor::new(bytes, "");
        let magic = c.u32("magic")?;
        if magic != MAGIC {
            return Err(format!("magic at offset 0 is {magic:#010x}, not {MAGIC:#010x}: not a .mhc file"));
        }
        let version = c.u32("version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!("version {version} at offset 4: 1 and {VERSION} can be read"));
        }
        let (count, streams) = (c.u32("number of sub-layers")?, c.u32("number of streams")?);
        let params = params_of(streams)?;
        if count == 0 || count % 2 != 0 || count > MAX_SUBLAYERS {
            return Err(format!("{count} sub-layers at offset 8: an even number up to {MAX_SUBLAYERS} is possible"));
        }
        let want = u64::from(count) * params as u64 * 4;
        if c.remaining() as u64 != want {
            let have = c.remaining();
            return Err(format!("{count} sub-layers of {streams} streams take {want} bytes, the file has {have}"));
        }
        let body = c.take(want, "parameters")?;
        let values = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let sublayers: Vec<Vec<f32>> = body.chunks_exact(4 * params).map(values).collect();
        for (i, p) in sublayers.iter().enumerate() {
            check(p).map_err(|what| format!("sub-layer {i} at offset {}: {what}", 16 + 4 * params * i))?;
        }
        Ok(MhcFile { streams: streams as usize, sublayers })
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = [MAGIC, VERSION, self.sublayers.len() as u32, self.streams as u32];
        let values = self.sublayers.iter().flatten().map(|v| v.to_bits());
        header.into_iter().chain(values).flat_map(u32::to_le_bytes).collect()
    }
}

/// Checks that parameters are finite and their H_res is doubly stochastic.
pub(super) fn check(params: &[f32]) -> Result<(), String> {
    let streams = streams_of(params.len());
    if let Some(i) = params.iter().position(|p| !p.is_finite()) {
        return Err(format!("parameter {i} is {}: not a finite number", params[i]));
    }
    let res = h_res(params);
    for i in 0..streams {
        let row: f64 = res[i * streams..][..streams].iter().sum();
        let col: f64 = (0..streams).map(|k| res[k * streams + i]).sum();
        if !((row - 1.0).abs() <= TOLERANCE && (col - 1.0).abs() <= TOLERANCE) {
            return Err(format!("row {i} of H_res sums to {row}, column {i} to {col}: not doubly stochastic"));
        }
    }
    match res.iter().position(|h| *h < 0.0) {
        Some(i) => Err(format!("entry {i} of H_res is negative: not doubly stochastic")),
        None => Ok(()),
    }
}

/// H_res (streams, streams) of a sub-layer, row by row.
///
/// # Panics
/// When these are not the parameters of 2 or 4 streams.
pub fn h_res(params: &[f32]) -> Vec<f64> {
    if streams_of(params.len()) == 2 {
        let a = 1.0 / (1.0 + f64::from(-params[0]).exp());
        return vec![a, 1.0 - a, 1.0 - a, a];
    }
    let logits = &params[..24];
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) - f64::from(top)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut res = vec![0.0; 16];
    let all = (0..256).map(|k: usize| [k >> 6, k >> 4 & 3, k >> 2 & 3, k & 3]);
    let permutations = all.filter(|p| (1..4).all(|i| !p[..i].contains(&p[i])));
    for (weight, permutation) in weights.iter().zip(permutations) {
        for (i, j) in permutation.into_iter().enumerate() {
            res[4 * i + j] += weight / total;
        }
    }
    res
}

#[cfg(feature = "native")]
impl MhcFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) or [`Error::Invalid`](crate::Error::Invalid).
    pub fn open(path: &std::path::Path) -> crate::Result<MhcFile> {
        /// Most bytes of a file: a header and the parameters of 4 streams.
        const MAX_BYTES: u64 = 16 + 4 * 40 * MAX_SUBLAYERS as u64;
        let bytes = crate::files::read(path, crate::files::Links::Follow, MAX_BYTES)?;
        MhcFile::parse(&bytes).map_err(|what| crate::Error::invalid(path, what))
    }

    /// Writes the file atomically. Returns its size in bytes.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn save(&self, path: &std::path::Path) -> crate::Result<u64> {
        let bytes = self.to_bytes();
        crate::files::write_atomic(path, &bytes)?;
        Ok(bytes.len() as u64)
    }
}
