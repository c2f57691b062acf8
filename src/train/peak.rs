//! The peak speed of a device, to which model FLOP utilisation is relative: that of a matrix product of floats, or of the
//! fastest step so far, which may be faster, since ternary layers multiply bytes.

use crate::Result;
use crate::backend::Backend;
use crate::graph::{DType, Graph, Plan};
use std::sync::Arc;
use std::time::Instant;

/// f32 operations per second that the device reaches in a square matrix product, the best of four runs. The matrices have 512
/// columns, or 2048 if that takes less than a millisecond.
///
/// # Errors
/// When the device fails.
pub fn matmul_peak(backend: &Backend) -> Result<f64> {
    let small = rate(backend, 512)?;
    let seconds = 2.0 * 512f64.powi(3) / small;
    if seconds < 1e-3 { rate(backend, 2048) } else { Ok(small) }
}

/// The share of `peak` that so many operations per second are, at most 1: what exceeds the peak is the new one. `None` for a
/// speed that is not a finite number.
pub fn utilisation(peak: &mut f64, flops: f64) -> Option<f64> {
    *peak = peak.max(flops);
    Some(flops / *peak).filter(|share| share.is_finite())
}

fn rate(backend: &Backend, n: usize) -> Result<f64> {
    let mut g = Graph::new();
    let (a, b) = (g.persistent("a", &[n, n], DType::F32), g.persistent("b", &[n, n], DType::F32));
    let (section, _) = g.section("peak", |g| g.linear(a, b, 0..n));
    let mut program = backend.prepare(Arc::new(Plan::new(g)))?;
    let mut best = 0f64;
    for _ in 0..4 {
        let start = Instant::now();
        program.run_section(section)?;
        pollster::block_on(program.ready())?;
        best = best.max(2.0 * (n as f64).powi(3) / start.elapsed().as_secs_f64());
    }
    Ok(best)
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
