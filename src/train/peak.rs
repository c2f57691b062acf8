//! Measures the peak speed of a device, to which model FLOP utilisation is relative.

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
