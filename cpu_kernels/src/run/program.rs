//! Runs a prepared list of kernel calls over a set of owned buffers.
//!
//! Consecutive calls run side by side, as one job of the pool, where none of them touches what another writes. A decoded
//! token is many short calls, and most of their time is spent waiting for each other.

use crate::matrix::ternary_gemv::Layouts;
use crate::run::memory::Memory;
use crate::run::packed::{Packed, Packing};
use crate::{ArgWords, Buf, Call, Kernel, Level, Pool};
use std::ops::Range;
use std::sync::Arc;

/// Parts a thread of steps that run side by side: more would bring nothing.
const PARTS_A_THREAD: usize = 16;

/// One kernel call, resolved. Nothing about it is taken on trust: a kernel panics on a buffer that it would write and the
/// step only reads, or that is too small.
pub struct Step {
    /// The op's kernel.
    pub kernel: &'static Kernel,
    /// The op's arguments.
    pub args: ArgWords,
    /// What each binding is.
    pub bufs: Vec<Bind>,
    /// How many parts the work is split into.
    pub parts: usize,
}

/// A binding of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The number of the buffer.
    pub buffer: usize,
    /// The bytes of it that the kernel sees; `None` for all, as many as there are.
    pub part: Option<Range<usize>>,
    /// Whether the kernel may write it.
    pub writes: bool,
}

/// A whole buffer, and whether the kernel may write it.
impl From<(usize, bool)> for Bind {
    fn from((buffer, writes): (usize, bool)) -> Bind {
        Bind { buffer, part: None, writes }
    }
}

/// A step bound to its buffers.
struct Bound {
    step: Step,
    bufs: Vec<Buf>,
    /// Which of [`CpuProgram::packed`].
    packed: Option<usize>,
    /// The steps from here on may run beside this one.
    free_from: usize,
}

// SAFETY: the buffers belong to the program that the step is part of, and are only used while that is borrowed.
unsafe impl Send for Bound {}
// SAFETY: kernels write disjoint parts (the contract of `Kernel`), so several threads may run one step.
unsafe impl Sync for Bound {}

/// A packed operand. It has no value until it is needed, and none after one of its buffers was written.
struct Constant {
    packing: &'static Packing,
    shape: [u32; 3],
    bufs: Vec<Bind>,
    /// A step that it is made for.
    step: usize,
    value: Option<Packed>,
}

/// A buffer as a step binds it.
fn buf(buffers: &mut [Memory], bind: &Bind) -> Buf {
    let (start, bytes) = buffers[bind.buffer].start();
    let part = bind.part.clone().unwrap_or(0..bytes);
    assert!(part.start <= part.end && part.end <= bytes, "bytes {part:?} of {bytes}");
    // SAFETY: owned by the program, whose steps run while it is borrowed mutably, and bound again when it has moved. The
    // part lies in it.
    unsafe { Buf::new(start.add(part.start), part.len(), bind.writes) }
}

/// Buffers, the calls over them, and the threads that run the calls.
pub struct CpuProgram {
    level: Level,
    layouts: Arc<Layouts>,
    pool: Pool,
    buffers: Vec<Memory>,
    steps: Vec<Bound>,
    packed: Vec<Constant>,
    /// Which of these are made from each buffer.
    packed_from: Vec<Vec<usize>>,
}

impl CpuProgram {
    /// A program over zeroed buffers of `sizes` bytes. Operands that kernels read faster when packed are packed if no step
    /// writes them.
    ///
    /// # Errors
    /// When the system gives no more threads, or ([`std::io::ErrorKind::OutOfMemory`]) no more memory.
    ///
    /// # Panics
    /// When the level is not available, or a step binds a buffer or bytes that are not there, bytes that do not start at a
    /// multiple of 64, or a buffer that it writes twice: kernels rely on none of these happening.
    pub fn new(level: Level, threads: usize, sizes: &[usize], steps: Vec<Step>) -> std::io::Result<Self> {
        assert!(level.is_available(), "this processor has no {level}");
        for step in &steps {
            for (i, Bind { buffer, writes, .. }) in step.bufs.iter().enumerate() {
                let twice = step.bufs[..i].iter().any(|other| other.buffer == *buffer && (*writes || other.writes));
                assert!(*buffer < sizes.len() && !twice, "buffer {buffer} is missing, or written and bound twice");
            }
        }
        let buffers = sizes.iter().map(|bytes| Memory::zeroed(*bytes)).collect::<std::io::Result<_>>()?;
        let mut program = CpuProgram {
            level,
            layouts: Arc::new(Layouts::new(level, None)),
            pool: Pool::new(threads)?,
            buffers,
            steps: Vec::with_capacity(steps.len()),
            packed: Vec::new(),
            packed_from: vec![Vec::new(); sizes.len()],
        };
        program.bind(steps);
        Ok(program)
    }

    /// Chooses the layouts of ternary matrices as `layouts` does, which other programs may share.
    pub fn with_layouts(mut self, layouts: Arc<Layouts>) -> Self {
        self.layouts = layouts;
        self
    }

    fn bind(&mut self, steps: Vec<Step>) {
        let count = self.buffers.len();
        let mut written = vec![false; count];
        steps.iter().flat_map(|step| &step.bufs).for_each(|bind| written[bind.buffer] |= bind.writes);
        // Steps up to the last one that uses or that writes each buffer.
        let (mut until_use, mut until_write) = (vec![0; count], vec![0; count]);
        for (i, step) in steps.into_iter().enumerate() {
            let bufs = step.bufs.iter().map(|bind| buf(&mut self.buffers, bind)).collect();
            let constant = |binding: &usize| step.bufs.get(*binding).is_some_and(|bind| !written[bind.buffer]);
            let packing = step.kernel.packing.filter(|p| (p.wanted)(self.level, &step.args));
            let packed = packing.filter(|p| p.constants.iter().all(constant)).map(|packing| {
                let from: Vec<Bind> = packing.constants.iter().map(|i| step.bufs[*i].clone()).collect();
                let shape = (packing.shape)(&step.args);
                let same = |c: &Constant| std::ptr::eq(c.packing, packing) && c.shape == shape && c.bufs == from;
                let known = self.packed_from[from[0].buffer].iter().copied().find(|i| same(&self.packed[*i]));
                known.unwrap_or_else(|| {
                    from.iter().for_each(|bind| self.packed_from[bind.buffer].push(self.packed.len()));
                    self.packed.push(Constant { packing, shape, bufs: from, step: i, value: None });
                    self.packed.len() - 1
                })
            });
            let free_from = step.bufs.iter().map(|bind| {
                let until = if bind.writes { &until_use } else { &until_write };
                until[bind.buffer]
            });
            let free_from = free_from.max().unwrap_or(0);
            for Bind { buffer, writes, .. } in &step.bufs {
                until_use[*buffer] = i + 1;
                until_write[*buffer] = if *writes { i + 1 } else { until_write[*buffer] };
            }
            self.steps.push(Bound { step, bufs, packed, free_from });
        }
    }

    /// Threads of the pool.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes of the operands of which packed forms will be made. These take about as much again, or less.
    pub fn constant_bytes(&self) -> usize {
        let bytes = |bind: &Bind| bind.part.as_ref().map_or(self.bytes(bind.buffer).len(), |part| part.len());
        self.packed.iter().flat_map(|c| &c.bufs).map(bytes).sum()
    }

    /// Bytes of the packed forms that were made.
    pub fn packed_bytes(&self) -> usize {
        self.packed.iter().filter_map(|c| c.value.as_ref()).map(Packed::bytes).sum()
    }

    /// Makes buffers as large as `sizes`, (buffer, bytes), says, where they are smaller. They keep their contents; what is new is
    /// zero.
    ///
    /// # Errors
    /// When the system gives no more memory. Some of the buffers may have grown.
    pub fn grow(&mut self, sizes: &[(usize, usize)]) -> std::io::Result<()> {
        let grown = sizes.iter().try_for_each(|(b, bytes)| self.buffers[*b].grow(*bytes));
        for Bound { step, bufs, .. } in &mut self.steps {
            *bufs = step.bufs.iter().map(|bind| buf(&mut self.buffers, bind)).collect();
        }
        grown
    }

    /// The contents of a buffer.
    pub fn bytes(&self, buffer: usize) -> &[u8] {
        self.buffers[buffer].get()
    }

    /// The contents of a buffer, to write. Operands packed from it are packed again when they are needed.
    pub fn bytes_mut(&mut self, buffer: usize) -> &mut [u8] {
        self.packed_from[buffer].iter().for_each(|i| self.packed[*i].value = None);
        self.buffers[buffer].get_mut()
    }

    /// Runs the steps of `range` as if in order.
    pub fn run(&mut self, range: Range<usize>) {
        self.run_unless(range, &|| false);
    }

    /// Like [`CpuProgram::run`], but asks `stop` before steps and ends early if it says so. Returns whether all steps ran.
    pub fn run_unless(&mut self, range: Range<usize>, stop: &dyn Fn() -> bool) -> bool {
        self.pack(range.clone());
        let CpuProgram { level, pool, steps, packed, .. } = self;
        let mut start = range.start;
        while start < range.end {
            if stop() {
                return false;
            }
            let mut parts = steps[start].step.parts;
            let joins = |s: &&Bound| {
                parts += s.step.parts;
                s.free_from <= start && parts <= PARTS_A_THREAD * pool.threads()
            };
            let together = 1 + steps[start + 1..range.end].iter().take_while(joins).count();
            let job = Job { steps: &steps[start..start + together], packed, level: *level };
            if job.steps.iter().all(|s| s.step.parts == 1) {
                job.steps.iter().for_each(|s| job.call(s, 0));
            } else {
                pool.run(job.steps.iter().map(|s| s.step.parts).sum(), &|part| job.run(part));
            }
            start += together;
        }
        true
    }

    /// Packs the operands that the steps of `range` need and that are not packed yet.
    fn pack(&mut self, range: Range<usize>) {
        for step in &self.steps[range] {
            let Some(constant) = step.packed.map(|i| &mut self.packed[i]).filter(|c| c.value.is_none()) else {
                continue;
            };
            let Bound { step, bufs, .. } = &self.steps[constant.step];
            // SAFETY: nothing runs meanwhile.
            constant.value = Some(unsafe { (constant.packing.make)(self.level, &self.layouts, &step.args, bufs) });
        }
    }
}

/// Steps that run side by side.
struct Job<'a> {
    steps: &'a [Bound],
    packed: &'a [Constant],
    level: Level,
}

impl Job<'_> {
    /// Runs one part of all of them, counted through.
    fn run(&self, mut part: usize) {
        for step in self.steps {
            if part < step.step.parts {
                return self.call(step, part);
            }
            part -= step.step.parts;
        }
    }

    fn call(&self, Bound { step, bufs, packed, .. }: &Bound, part: usize) {
        let packed = packed.and_then(|i| self.packed[i].value.as_ref());
        let call = Call { level: self.level, args: &step.args, bufs, packed, part, parts: step.parts };
        // SAFETY: no written buffer is bound twice (checked by `new`), steps that run at once touch nothing that another of
        // them writes, each part runs once, and the program is borrowed mutably.
        unsafe { (step.kernel.run)(&call) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::MATMUL;
    use crate::ops::matmul::MatmulArgs;
    use crate::{Args, Level};

    #[test]
    #[should_panic(expected = "of a packed (64, 32)")]
    fn a_packed_operand_of_another_shape_is_refused() {
        let args = |n, k| MatmulArgs { m: 1, n, k, b_transposed: 1, ..MatmulArgs::default() }.to_words();
        let bufs = || [(0, false), (1, false), (2, true)].map(Bind::from).to_vec();
        let step = |n, k| Step { kernel: &MATMUL, args: args(n, k), bufs: bufs(), parts: 1 };
        let sizes = [512, 8192, 256];
        let mut program = CpuProgram::new(Level::Scalar, 1, &sizes, vec![step(64, 32), step(16, 128)]).unwrap();
        program.run(0..2);
        program.steps[1].packed = program.steps[0].packed;
        program.run(0..2);
    }
}
