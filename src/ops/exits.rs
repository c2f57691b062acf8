//! Rows that take fewer passes through looped layers than others.

use super::{COPY, EXIT_ROWS, KEEP_ROWS};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::copy::CopyArgs;
use cpu_kernels::ops::exit_rows::ExitRowsArgs;
use cpu_kernels::ops::keep_rows::KeepRowsArgs;

/// How many passes the rows of a step take.
#[derive(Clone, Copy, Debug)]
pub struct Exits {
    /// (rows) u32: of the rows that get logits, the number of each that may take fewer passes; 0xffffffff for other rows.
    pub pick: TensorId,
    /// (picks) u32: the passes that each took before it ended; 0 for one that goes on. It must be zero when a step starts.
    pub ends: TensorId,
}

impl Graph {
    /// Ends the rows whose logits (picks, vocab) have an entropy below `threshold`, in nats, after so many `passes`.
    pub fn exit_rows(&mut self, logits: TensorId, exits: Exits, passes: usize, threshold: f32) {
        let (rows, vocab) = self.matrix(logits);
        let [rows, vocab, passes] = [rows, vocab, passes].map(|n| n as u32);
        self.push(&EXIT_ROWS, ExitRowsArgs { rows, vocab, passes, threshold }, &[logits, exits.ends]);
    }

    /// The rows of `old` that have ended, and those of `next` that have not, each (rows, dim) or (streams, rows, dim) -> the same.
    ///
    /// # Panics
    /// When the shapes differ, or dim is not a multiple of 4.
    pub fn keep_rows(&mut self, exits: Exits, [old, next]: [TensorId; 2]) -> TensorId {
        let (shape, rows, (all, dim)) =
            (self.shape(old).to_vec(), self.tensor(exits.pick).elements(), self.matrix(old));
        let fits = shape == self.shape(next) && dim.is_multiple_of(4);
        assert!(fits, "keep_rows: {} and {}", self.tensor(old).name, self.tensor(next).name);
        let y = self.temp("kept", &shape, DType::F32);
        let [streams, rows, dim] = [all / rows, rows, dim].map(|n| n as u32);
        self.push(&KEEP_ROWS, KeepRowsArgs { streams, rows, dim }, &[exits.pick, exits.ends, old, next, y]);
        y
    }

    /// y = x, f32 of the same shape.
    pub fn copy(&mut self, x: TensorId, y: TensorId) {
        let n = self.tensor(x).elements() as u32;
        self.push(&COPY, CopyArgs { n }, &[x, y]);
    }
}
