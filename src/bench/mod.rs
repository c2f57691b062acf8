//! Measures the speed of training, prefill and decoding, and profiles them op by op. Times of whole steps are wall-clock times
//! that include waiting for the device; a profile says which clock timed its ops. Figures are medians, with the lowest and the
//! highest.

mod gpu;
mod inference;
mod needs;
mod shapes;
mod traffic;
mod train_step;

pub use gpu::{Extent, OpFigures, Ops, Outcome, Report, Sequences, Training, bench_gpu};
pub use inference::{InferenceBench, SequencesBench, bench_decode, bench_prefill, bench_sequences, profile_decode};
pub use needs::{FileNeeds, Needs, Room, TrainingNeeds};
pub use shapes::{SHAPES, Shape, random_model};
pub use traffic::{OpTraffic, StepPlan, least_bytes, plan_step};
pub use train_step::{StepBench, bench_step, profile_step};

use crate::backend::Clock;
use crate::graph::Graph;
use std::collections::BTreeMap;
use traffic::moved;

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

/// Times of the ops of a step.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What timed them.
    pub clock: Clock,
    /// The slowest first.
    pub ops: Vec<OpTime>,
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
    /// Bytes that all calls read and write.
    pub bytes: u64,
}

/// Sums nodes by op, the slowest first. Each comes with its number, its seconds in a step and its number of runs in a step.
fn by_op(graph: &Graph, timed: impl IntoIterator<Item = (usize, f64, u64)>) -> Vec<OpTime> {
    let mut times: BTreeMap<&'static str, OpTime> = BTreeMap::new();
    for (i, seconds, runs) in timed {
        let node = &graph.nodes[i];
        let op = node.op.name;
        let entry = times.entry(op).or_insert(OpTime { op, calls: 0, seconds: 0.0, flops: 0, bytes: 0 });
        entry.calls += 1;
        entry.seconds += seconds;
        entry.flops += runs * (node.op.flops)(&node.args);
        entry.bytes += runs * moved(graph, node);
    }
    let mut times: Vec<OpTime> = times.into_values().collect();
    times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    times
}
