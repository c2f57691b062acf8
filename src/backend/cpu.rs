//! The CPU backend: runs every op by its kernel, on a pool of threads.

use crate::graph::{Access, Node, Plan};
use crate::{Error, Result, memory};
use cpu_kernels::matrix::ternary_gemv::{Layout, Layouts};
use cpu_kernels::{Bind, CpuProgram, Level, Step};
use std::io::ErrorKind;
use std::sync::Arc;

/// Elementary operations for each thread: with fewer, another thread costs more than it saves.
const GRAIN: u64 = 20_000;

/// The processor's cores at one instruction-set level.
#[derive(Clone, Debug)]
pub struct Cpu {
    level: Level,
    threads: usize,
    /// Of ternary weights for few rows: all programs of this backend agree on them.
    layouts: Arc<Layouts>,
}

impl Cpu {
    /// Chooses an instruction-set level and a number of threads, by default one for each core.
    ///
    /// # Errors
    /// When the processor lacks the level, or `threads` is not between 1 and 1024.
    pub fn new(level: Level, threads: Option<usize>) -> Result<Self> {
        if !level.is_available() {
            return Err(Error::Device(format!("this processor has no {level}")));
        }
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        if !(1..=1024).contains(&threads) {
            return Err(Error::usage(format!("{threads} threads: between 1 and 1024 are possible")));
        }
        Ok(Cpu { level, threads, layouts: Arc::new(Layouts::new(level, None)) })
    }

    /// Reads ternary weights for few rows in this layout, where the fastest one would be measured.
    ///
    /// # Errors
    /// When the level has no kernel for it.
    pub fn with_layout(self, layout: Layout) -> Result<Self> {
        let level = self.level;
        if !layout.runs_at(level) {
            return Err(Error::usage(format!("--cpu-layout {layout}: there is no kernel for it at level {level}")));
        }
        Ok(Cpu { layouts: Arc::new(Layouts::new(level, Some(layout))), ..self })
    }

    /// The instruction-set level of the kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of threads, including the caller's.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// One line for people: level and threads.
    pub fn describe(&self) -> String {
        format!("cpu ({}, {} thread{})", self.level, self.threads, if self.threads == 1 { "" } else { "s" })
    }

    pub(super) fn prepare(&self, plan: &Plan) -> Result<CpuProgram> {
        const ADVICE: &str = "use a smaller batch or model";
        let free = memory::free();
        memory::check(plan.bytes(), free, ADVICE)?;
        let sizes: Vec<usize> = plan.slots.iter().map(|s| s.bytes).collect();
        let step = |node: &Node| Step {
            kernel: node.op.kernel,
            args: node.args,
            bufs: (node.tensors.iter().zip(node.op.bindings))
                .map(|(t, b)| Bind { buffer: plan.slot(*t), part: plan.view(*t), writes: b.access != Access::Read })
                .collect(),
            parts: ((node.op.work)(&node.args) / GRAIN).clamp(1, self.threads as u64) as usize,
        };
        let steps = plan.graph.nodes.iter().map(step).collect();
        let refused = |e: std::io::Error| match e.kind() {
            ErrorKind::OutOfMemory => memory::too_little(plan.bytes(), free, ADVICE),
            _ => Error::Device(format!("{} threads: {e}; fewer can be asked for by --threads", self.threads)),
        };
        let program = CpuProgram::new(self.level, self.threads, &sizes, steps).map_err(refused)?;
        memory::check(plan.bytes() + program.constant_bytes(), free, ADVICE)?;
        Ok(program.with_layouts(self.layouts.clone()))
    }
}

/// Gives buffers more room: (buffer, bytes).
pub(super) fn grow(program: &mut CpuProgram, sizes: &[(usize, usize)]) -> Result<()> {
    const ADVICE: &str = "use fewer slots or a smaller context";
    let more = sizes.iter().map(|(b, bytes)| bytes.saturating_sub(program.bytes(*b).len()));
    let more = more.fold(0, usize::saturating_add);
    let free = memory::free();
    memory::check(more, free, ADVICE)?;
    program.grow(sizes).map_err(|_| memory::too_little(more, free, ADVICE))
}
