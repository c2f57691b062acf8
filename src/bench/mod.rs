//! Measures the speed of training, prefill and decoding, and profiles them op by op. Times are wall-clock times that include
//! waiting for the device. Figures are medians, with the lowest and the highest.

mod inference;
mod shapes;
mod train_step;

pub use inference::{InferenceBench, bench_decode, bench_prefill, profile_decode};
pub use shapes::{SHAPES, Shape, random_model};
pub use train_step::{StepBench, bench_step, profile_step};

use crate::graph::Node;
use std::collections::BTreeMap;

/// Times of repeated runs of the same work.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Tokens of one run.
    pub tokens: usize,
    /// Seconds of each run.
    pub seconds: Vec<f64>,
}

impl Timing {
    /// Median seconds.
    pub fn median(&self) -> f64 {
        median(self.seconds.clone())
    }

    /// Tokens per second, by the median time.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.median()
    }

    /// The lowest and the highest tokens per second.
    pub fn range(&self) -> (f64, f64) {
        let (least, most) = self.seconds.iter().fold((f64::MAX, 0f64), |(a, b), s| (a.min(*s), b.max(*s)));
        (self.tokens as f64 / most, self.tokens as f64 / least)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Time that one op takes in a step.
#[derive(Clone, Debug)]
pub struct OpTime {
    /// Name of the op.
    pub op: &'static str,
    /// Nodes of the graph with this op.
    pub calls: usize,
    /// Seconds in all calls together.
    pub seconds: f64,
    /// Multiply-adds of matrix products in all calls, counted as two each; 0 for other ops.
    pub flops: u64,
}

/// Sums nodes by op, the slowest first. Each node comes with its seconds in a step and its number of runs in a step.
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
