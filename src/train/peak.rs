//! The limits of a device: how fast it multiplies and adds, and how fast it reads and writes memory. Programs that do nothing
//! else measure them, so that they say nothing about the kernels of a model. Model FLOP utilisation is relative to the first.

use crate::backend::{Backend, Clock, Program};
use crate::graph::{DType, Graph, Plan};
use crate::ops::{PROBE_COPY, PROBE_FMA};
use crate::{Error, Result};
use cpu_kernels::ops::probe_copy::ProbeCopyArgs;
use cpu_kernels::ops::probe_fma::ProbeFmaArgs;
use std::sync::Arc;

/// Runs whose best counts.
const RUNS: usize = 4;
/// Elements of the probe of multiply-adds: many times the threads of the largest GPU.
const THREADS: u32 = 1 << 20;
/// Bytes of each of the two buffers of the copy: more than the cache of the largest GPU.
pub const COPIED: usize = 256 << 20;

/// f32 operations per second, two a multiply-add, that the device reaches in registers.
///
/// # Errors
/// When the device fails.
pub fn fma_peak(backend: &Backend) -> Result<f64> {
    // Each of them takes twice the time of the one before, from microseconds on any device on.
    let sizes = (0..24u32).map(|i| (THREADS >> 8u32.saturating_sub(i), 1 << i.saturating_sub(8)));
    let sizes: Vec<ProbeFmaArgs> = sizes.map(|(n, rounds)| ProbeFmaArgs { n, rounds, a: 0.999, b: 0.001 }).collect();
    let mut g = Graph::new();
    let y = g.persistent("y", &[THREADS as usize], DType::F32);
    sizes.iter().for_each(|args| g.push(&PROBE_FMA, *args, &[y]));
    let mut program = backend.prepare(Arc::new(Plan::new(g)))?;
    let mut chosen = 0;
    while chosen + 1 < sizes.len() && seconds(&mut program, chosen)? < LONG {
        chosen += 1;
    }
    best(&mut program, chosen, sizes[chosen].flops() as f64)
}

/// Seconds of a run that is long enough to be measured.
const LONG: f64 = 4e-3;

/// Bytes per second that the device reads and writes together, in a copy of `bytes` bytes; and the clock of both measurements.
///
/// # Errors
/// When the device fails, or allows no such buffer.
pub fn copy_bandwidth(backend: &Backend, bytes: usize) -> Result<(f64, Clock)> {
    let vectors = (bytes / 16).max(1);
    let mut g = Graph::new();
    let [x, y] = ["x", "y"].map(|name| g.persistent(name, &[4 * vectors], DType::F32));
    g.push(&PROBE_COPY, ProbeCopyArgs { n: vectors as u32 }, &[x, y]);
    let mut program = backend.prepare(Arc::new(Plan::new(g)))?;
    seconds(&mut program, 0)?;
    Ok((best(&mut program, 0, (2 * 16 * vectors) as f64)?, program.clock()))
}

/// The share of `peak` that so many operations per second are, at most 1: what exceeds the peak is the new one. `None` for a
/// speed that is not a finite number.
pub fn utilisation(peak: &mut f64, flops: f64) -> Option<f64> {
    *peak = peak.max(flops);
    Some(flops / *peak).filter(|share| share.is_finite())
}

/// Seconds of one node.
fn seconds(program: &mut Program, node: usize) -> Result<f64> {
    Ok(program.time(node..node + 1)?.remove(0))
}

/// `work` per second in the fastest of some runs of a node.
fn best(program: &mut Program, node: usize, work: f64) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        least = least.min(seconds(program, node)?);
    }
    let rate = work / least;
    if rate.is_finite() { Ok(rate) } else { Err(Error::Device("the device's clock stands still".into())) }
}

#[cfg(test)]
mod tests {
    use super::utilisation;

    #[test]
    fn no_step_uses_more_than_the_peak() {
        let speeds = [0.0, 1e-300, 5.0, 9.0, 10.0, 30.0, 20.0, 1e300, 1.0, f64::INFINITY, f64::NAN, 3.0];
        for start in [0.0, 1e-9, 10.0, 1e12, f64::INFINITY] {
            let mut peak = start;
            for flops in speeds {
                let share = utilisation(&mut peak, flops);
                assert!(share.is_none_or(|share| (0.0..=1.0).contains(&share)), "{flops} of {start}: {share:?}");
            }
        }
        let mut peak = 10.0;
        let shares = [5.0, 20.0, 5.0].map(|flops| utilisation(&mut peak, flops).unwrap());
        assert_eq!((shares, peak), ([0.5, 1.0, 0.25], 20.0));
    }
}
