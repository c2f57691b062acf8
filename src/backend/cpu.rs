//! The CPU backend: runs every op by its kernel, on a pool of threads.

use crate::error::mib;
use crate::graph::{Access, Node, Plan};
use crate::{Error, Result};
use cpu_kernels::matrix::ternary_gemv::{Layout, Layouts};
use cpu_kernels::{CpuProgram, Level, Step};
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
        let (needed, free) = (plan.bytes() as u64, free_memory());
        if needed >= free {
            return Err(Error::OutOfMemory(format!(
                "this takes {} MiB of memory, and {} MiB are free: use a smaller batch or model",
                mib(needed).ceil(),
                mib(free).ceil()
            )));
        }
        let sizes: Vec<usize> = plan.slots.iter().map(|s| s.bytes).collect();
        let step = |node: &Node| Step {
            kernel: node.op.kernel,
            args: node.args,
            bufs: (node.tensors.iter().zip(node.op.bindings))
                .map(|(t, b)| (plan.slot(*t), b.access != Access::Read))
                .collect(),
            parts: ((node.op.work)(&node.args) / GRAIN).clamp(1, self.threads as u64) as usize,
        };
        let steps = plan.graph.nodes.iter().map(step).collect();
        let no_threads =
            |e| Error::Device(format!("{} threads: {e}; fewer can be asked for by --threads", self.threads));
        let program = CpuProgram::new(self.level, self.threads, &sizes, steps).map_err(no_threads)?;
        Ok(program.with_layouts(self.layouts.clone()))
    }
}

/// Free bytes: on Linux the available memory and swap, within the limit of the container; elsewhere the address space.
fn free_memory() -> u64 {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let allowed = file("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(usize::MAX as u64);
    let meminfo = file("/proc/meminfo");
    let kib = |key: &str| {
        let mut values = meminfo.lines().filter_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB"));
        values.next()?.trim().parse::<u64>().ok()
    };
    match kib("MemAvailable:") {
        Some(available) => allowed.min((available + kib("SwapFree:").unwrap_or(0)) << 10),
        None => allowed,
    }
}
