//! Runs a prepared list of kernel calls over a set of owned buffers.

use crate::{ArgWords, Buf, Call, Kernel, Level, Pool};
use std::ops::Range;

/// Aligned storage; its address does not change when the list of buffers grows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// One kernel call, resolved.
pub struct Step {
    pub kernel: Kernel,
    pub args: ArgWords,
    /// Which buffer each binding is, and whether the kernel may write it.
    pub bufs: Vec<(usize, bool)>,
    /// How many parts the work is split into.
    pub parts: usize,
}

/// Buffers, the calls over them, and the threads that run the calls.
pub struct CpuProgram {
    level: Level,
    pool: Pool,
    buffers: Vec<(Vec<Line>, usize)>,
    steps: Vec<Step>,
}

impl CpuProgram {
    /// # Panics
    /// When a step binds a buffer that is not there, or one that it writes twice: kernels rely on neither happening.
    pub fn new(level: Level, threads: usize, sizes: &[usize], steps: Vec<Step>) -> Self {
        assert!(level.is_available(), "this processor has no {level}");
        for step in &steps {
            for (i, (b, writes)) in step.bufs.iter().enumerate() {
                let twice = step.bufs[..i].iter().any(|(other, also)| other == b && (*writes || *also));
                assert!(*b < sizes.len() && !twice, "buffer {b} is missing, or written and bound twice");
            }
        }
        let line = |bytes: &usize| (vec![Line([0; 64]); bytes.div_ceil(64)], *bytes);
        CpuProgram { level, pool: Pool::new(threads), buffers: sizes.iter().map(line).collect(), steps }
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub fn bytes(&self, buffer: usize) -> &[u8] {
        let (lines, bytes) = &self.buffers[buffer];
        // SAFETY: a line is 64 initialised bytes.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), *bytes) }
    }

    pub fn bytes_mut(&mut self, buffer: usize) -> &mut [u8] {
        let (lines, bytes) = &mut self.buffers[buffer];
        // SAFETY: a line is 64 bytes, any of which may be written.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), *bytes) }
    }

    /// Runs the steps of `range` in order.
    pub fn run(&mut self, range: Range<usize>) {
        for step in &self.steps[range] {
            let bufs: Vec<Buf> = step
                .bufs
                .iter()
                .map(|&(b, _)| {
                    let (lines, bytes) = &mut self.buffers[b];
                    // SAFETY: owned by self, which is borrowed for the whole run; Line is aligned to 64.
                    unsafe { Buf::new(lines.as_mut_ptr().cast(), *bytes) }
                })
                .collect();
            let job = Job { step, bufs, level: self.level };
            self.pool.run(step.parts, &|part| job.run(part));
        }
    }
}

struct Job<'a> {
    step: &'a Step,
    bufs: Vec<Buf>,
    level: Level,
}

// SAFETY: kernels write disjoint parts (the contract of `Kernel`), so the buffers may be shared between threads.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    fn run(&self, part: usize) {
        let Job { step, bufs, level } = self;
        let call = Call { level: *level, args: &step.args, bufs, part, parts: step.parts };
        // SAFETY: no written buffer is bound twice (checked by `new`), each part runs once, and the program is borrowed mutably.
        unsafe { (step.kernel)(&call) }
    }
}
