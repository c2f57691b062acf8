//! Choosing a layout by measuring: ranks of instruction sets say little about the speed of a kernel.

use super::{Layout, PackedTernary, TernaryGemv};
use crate::Level;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Weights that are timed: enough that a table of activations is paid for, few enough that packing them takes no time.
const SAMPLE: usize = 1 << 20;
/// Calls a layout, in turn; the fastest counts.
const CALLS: usize = 20;

type Shape = (Level, usize, usize, usize);

static FORCED: Mutex<Option<Layout>> = Mutex::new(None);
static CHOSEN: Mutex<Vec<(Shape, Layout)>> = Mutex::new(Vec::new());

/// Makes [`choose`] return `layout` at every level that has it, in this process; `None` lets it measure again. Whether a
/// level has it, [`Layout::of`] tells.
pub fn force(layout: Option<Layout>) {
    *FORCED.lock().unwrap_or_else(PoisonError::into_inner) = layout;
}

/// The fastest layout for one row against weights (outs, dim) at a level. The first call for a shape takes about a
/// millisecond of this thread, where there is a choice.
pub fn choose(level: Level, outs: usize, dim: usize, group: usize) -> Layout {
    let layouts = Layout::of(level);
    let forced = *FORCED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(layout) = forced.filter(|l| l.runs_at(level)) {
        return layout;
    }
    if let [only] = layouts {
        return *only;
    }
    let shape = (level, outs, dim, group);
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, layout)) = chosen.iter().find(|c| c.0 == shape) {
        return *layout;
    }
    let layout = measure(level, outs, dim, group);
    chosen.push((shape, layout));
    layout
}

fn measure(level: Level, outs: usize, dim: usize, group: usize) -> Layout {
    let outs = outs.min((SAMPLE / dim.max(1)).max(32));
    let (codes, scales) = (vec![0b01_10_00_01; outs * dim.div_ceil(128) * 32], vec![1.0; outs * (dim / group)]);
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
