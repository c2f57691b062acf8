//! Choosing a layout by measuring: ranks of instruction sets say little about the speed of a kernel.

use super::{Layout, PackedTernary, TernaryGemv};
use crate::{Level, matrix::packed_row_bytes};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Weights that are timed: enough that a table of activations is paid for, few enough that packing them takes no time.
const SAMPLE: usize = 1 << 20;
/// Calls a layout, in turn; the fastest counts.
const CALLS: usize = 20;

/// (outs, dim, group) of a matrix.
type Shape = (usize, usize, usize);

/// The layout of each matrix at a level: the one that is asked for, or the fastest.
#[derive(Debug)]
pub struct Layouts {
    level: Level,
    wanted: Option<Layout>,
    measured: Mutex<Vec<(Shape, Layout)>>,
}

impl Layouts {
    /// `wanted` is used for every matrix. Without it, or where the level has no kernel for it, layouts are measured.
    pub fn new(level: Level, wanted: Option<Layout>) -> Self {
        Layouts { level, wanted: wanted.filter(|layout| layout.runs_at(level)), measured: Mutex::default() }
    }

    /// The layout for weights (outs, dim). Measured for one row: the first call for a shape takes about a millisecond
    /// where there is a choice.
    pub fn choose(&self, outs: usize, dim: usize, group: usize) -> Layout {
        if let Some(layout) = self.wanted {
            return layout;
        }
        if let [only] = Layout::of(self.level) {
            return *only;
        }
        let shape = (outs, dim, group);
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layout)) = measured.iter().find(|(known, _)| *known == shape) {
            return *layout;
        }
        let layout = measure(self.level, shape);
        measured.push((shape, layout));
        layout
    }
}

fn measure(level: Level, (outs, dim, group): Shape) -> Layout {
    let outs = outs.min((SAMPLE / dim.max(1)).max(32));
    let (codes, scales) = (vec![0b01_10_00_01; outs * packed_row_bytes(dim)], vec![1.0; outs * (dim / group)]);
    let (xq, mut y) = (vec![1; dim], vec![0.0; outs]);
    let mut timed: Vec<_> = Layout::of(level)
        .iter()
        .map(|&l| (f64::INFINITY, PackedTernary::new(l, &codes, &scales, outs, dim, group)))
        .collect();
    for _ in 0..CALLS {
        for (best, weights) in &mut timed {
            let start = Instant::now();
            TernaryGemv { weights, rows: 1, xq: &xq, steps: &[1.0] }.run(level, &mut y, outs);
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    let fastest = timed.iter().min_by(|a, b| a.0.total_cmp(&b.0));
    fastest.map_or(Layout::Canonical, |(_, weights)| weights.layout())
}
