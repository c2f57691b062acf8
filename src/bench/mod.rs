//! Measuring: how fast a training step, the reading of a prompt and the drawing of tokens are, and where the time goes,
//! op by op. Times are of the wall clock, waited for on the device; figures are medians, with the least and the most.

mod inference;
mod shapes;
mod train_step;

pub use inference::{InferenceBench, bench_decode, bench_prefill, profile_decode};
pub use shapes::{SHAPES, Shape};
pub use train_step::{StepBench, bench_step, profile_step};

use crate::graph::Node;
use std::collections::BTreeMap;

/// The same work, done again and again.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Tokens of the work done once.
    pub tokens: usize,
    /// How long it took each time.
    pub seconds: Vec<f64>,
}

impl Timing {
    /// Median seconds.
    pub fn median(&self) -> f64 {
        median(self.seconds.clone())
    }

    /// Tokens a second, by the median.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.median()
    }

    /// The fewest and the most tokens a second.
    pub fn range(&self) -> (f64, f64) {
        let (least, most) = self.seconds.iter().fold((f64::MAX, 0f64), |(a, b), s| (a.min(*s), b.max(*s)));
        (self.tokens as f64 / most, self.tokens as f64 / least)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Time spent in one op over a step.
#[derive(Clone, Debug)]
pub struct OpTime {
    pub op: &'static str,
    pub calls: usize,
    pub seconds: f64,
    /// Of matrix products.
    pub flops: u64,
}

/// Adds up nodes by op, each with its seconds in a step and how often it runs in one; the slowest first.
fn by_op<'a>(nodes: impl IntoIterator<Item = (&'a Node, f64, u64)>) -> Vec<OpTime> {
    let mut times: BTreeMap<&'static str, OpTime> = BTreeMap::new();
    for (node, seconds, runs) in nodes {
        let op = node.op.name;
        let entry = times.entry(op).or_insert(OpTime { op, calls: 0, seconds: 0.0, flops: 0 });
        entry.calls += 1;
        entry.seconds += seconds;
        entry.flops += runs * (node.op.flops)(&node.args);
    }
    let mut times: Vec<OpTime> = times.into_values().collect();
    times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    times
}
