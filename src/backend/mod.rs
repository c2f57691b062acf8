//! Backends run plans. A backend prepares a plan once (buffers, pipelines, bindings) and afterwards only submits nodes.
//!
//! Only the reading calls of [`Program`] wait for a device. They are async because a browser cannot block.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod lockstep;
mod wgpu;

#[cfg(feature = "native")]
use crate::Error;
use crate::Result;
use crate::graph::{Plan, Section, TensorId};
use std::ops::Range;
use std::sync::Arc;
#[cfg(feature = "native")]
use std::time::Instant;

pub use cpu::Cpu;
pub use cpu_kernels::Level;
pub use cpu_kernels::matrix::ternary_gemv::Layout;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "native")]
pub use lockstep::first_not_finite;
pub use lockstep::{Difference, float_error, lockstep, parity_limit};
#[cfg(feature = "native")]
pub use wgpu::adapters;
pub use wgpu::{AdapterInfo, FUSED, NO_ADAPTER, Wgpu, dispatches, fusible, shader_source};

/// An open device that can run plans.
pub enum Backend {
    /// The processor's cores.
    Cpu(Cpu),
    /// A GPU through wgpu: Vulkan, Metal, DirectX 12 or WebGPU.
    Wgpu(Wgpu),
    /// An NVIDIA GPU through CUDA.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl Backend {
    /// The name that [`open`] knows it by: `cpu`, `wgpu` or `cuda`.
    #[cfg(feature = "native")]
    pub fn name(&self) -> &'static str {
        match self {
            Backend::Cpu(_) => "cpu",
            Backend::Wgpu(_) => "wgpu",
            #[cfg(feature = "cuda")]
            Backend::Cuda(_) => "cuda",
        }
    }

    /// Whether it multiplies matrices of f16 faster than f32, so that a fast backward pass is faster.
    #[cfg(feature = "native")]
    pub fn multiplies_f16(&self) -> bool {
        match self {
            Backend::Cpu(_) => false,
            Backend::Wgpu(wgpu) => wgpu.has_matrices(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.has_matrices(),
        }
    }

    /// One line for people: the device, and the instruction set or driver in use.
    pub fn describe(&self) -> String {
        match self {
            Backend::Cpu(cpu) => cpu.describe(),
            Backend::Wgpu(wgpu) => wgpu.describe(),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => cuda.describe(),
        }
    }

    /// Allocates the plan's buffers, zeroed, and prepares everything that submitting its nodes needs.
    ///
    /// # Errors
    /// When memory is short, a tensor exceeds a limit of the device, or the device rejects a kernel.
    pub fn prepare(&self, plan: Arc<Plan>) -> Result<Program> {
        let device = match self {
            Backend::Cpu(cpu) => Device::Cpu(cpu.prepare(&plan)?),
            Backend::Wgpu(wgpu) => Device::Wgpu(wgpu.prepare(&plan)?),
            #[cfg(feature = "cuda")]
            Backend::Cuda(cuda) => Device::Cuda(cuda.prepare(&plan)?),
        };
        Ok(Program {
            plan,
            device,
            grown: 0,
            #[cfg(feature = "native")]
            stop: None,
        })
    }
}

enum Device {
    Cpu(cpu_kernels::CpuProgram),
    Wgpu(wgpu::WgpuProgram),
    #[cfg(feature = "cuda")]
    Cuda(cuda::CudaProgram),
}

/// Bytes of a buffer.
#[derive(Clone, Copy)]
struct Slice {
    slot: usize,
    start: usize,
    bytes: usize,
}

/// The bytes of a tensor.
fn slice(plan: &Plan, t: TensorId) -> Slice {
    let tensor = plan.graph.tensor(t);
    Slice { slot: plan.slot(t), start: plan.start(t), bytes: tensor.elements() * tensor.dtype.bytes() }
}

/// A tensor that is being read, as it was when the reading began.
pub(crate) struct Reading(Read);

enum Read {
    Done(Vec<u8>),
    Staged(wgpu::Staged),
}

/// A plan on a device.
pub struct Program {
    plan: Arc<Plan>,
    device: Device,
    /// Bytes by which tensors have grown.
    grown: usize,
    #[cfg(feature = "native")]
    stop: Option<Stop>,
}

/// Which clock timed nodes.
#[cfg(feature = "native")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// That of the device, which took a timestamp before each node and after it.
    Device,
    /// That of the processor, which ran the node itself.
    Processor,
    /// That of the processor, which submitted the node and waited for the device: the latency of a launch is included.
    Launch,
}

#[cfg(feature = "native")]
impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Clock::Device => "timestamps of the device",
            Clock::Processor => "the processor's clock",
            Clock::Launch => "the processor's clock, launch latency included: the device has no timestamps",
        })
    }
}

/// What may end work early.
#[cfg(feature = "native")]
struct Stop {
    asked: fn() -> bool,
    /// Sections submitted since `since`, when the device had nothing to do.
    queued: u32,
    since: Instant,
    /// Most sections to submit before waiting for the device.
    most: u32,
}

impl Program {
    /// The plan that this program runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What a range of nodes takes: dispatches on a GPU, where some sequences of nodes are one, and kernels on the CPU.
    pub fn dispatches(&self, nodes: Range<usize>) -> usize {
        match &self.device {
            Device::Cpu(_) => nodes.len(),
            Device::Wgpu(program) => program.dispatches(nodes),
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.dispatches(nodes),
        }
    }

    /// Bytes of all buffers, plus the packed copies of operands that the CPU backend keeps and the scratch memory of the
    /// others.
    pub fn bytes(&self) -> usize {
        let more = match &self.device {
            Device::Cpu(program) => program.packed_bytes(),
            Device::Wgpu(_) => self.plan.scratch(),
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.scratch_bytes(),
        };
        self.plan.bytes() + self.grown + more
    }

    /// Gives persistent tensors more room behind their last element, up to so many bytes each. They keep what they hold; what is
    /// new is zero, and only nodes reach it.
    ///
    /// # Errors
    /// When memory is short, or the device allows no buffer of the size. Some of the tensors may have grown.
    pub(crate) fn grow(&mut self, sizes: &[(TensorId, usize)]) -> Result<()> {
        let slots: Vec<(usize, usize)> = sizes.iter().map(|(t, bytes)| (self.plan.slot(*t), *bytes)).collect();
        match &mut self.device {
            Device::Cpu(program) => cpu::grow(program, &slots)?,
            Device::Wgpu(program) => program.grow(&self.plan, &slots)?,
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.grow(&self.plan, &slots)?,
        }
        self.grown = slots.iter().map(|(slot, bytes)| bytes.saturating_sub(self.plan.slots[*slot].bytes)).sum();
        Ok(())
    }

    /// Submits a range of the graph's nodes, in order. Does not wait for a GPU.
    ///
    /// # Errors
    /// When the device fails. A GPU may report an error of this call only in a later one.
    pub fn run(&mut self, nodes: Range<usize>) -> Result<()> {
        match &mut self.device {
            Device::Cpu(program) => program.run(nodes),
            Device::Wgpu(program) => program.run(nodes)?,
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.run(&self.plan, nodes)?,
        }
        Ok(())
    }

    /// [`Program::run`] that waits, and returns the seconds of each node.
    ///
    /// # Errors
    /// When the device fails.
    #[cfg(feature = "native")]
    pub fn time(&mut self, nodes: Range<usize>) -> Result<Vec<f64>> {
        let clock = self.clock();
        pollster::block_on(self.ready())?;
        if let (Device::Wgpu(program), Clock::Device) = (&mut self.device, clock) {
            return pollster::block_on(program.time(nodes));
        }
        let mut seconds = Vec::with_capacity(nodes.len());
        for i in nodes {
            let start = Instant::now();
            self.run(i..i + 1)?;
            if clock == Clock::Launch {
                pollster::block_on(self.ready())?;
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// The clock of [`Program::time`].
    #[cfg(feature = "native")]
    pub fn clock(&self) -> Clock {
        match &self.device {
            Device::Cpu(_) => Clock::Processor,
            Device::Wgpu(program) if program.has_clock() => Clock::Device,
            _ => Clock::Launch,
        }
    }

    /// [`Program::run`] over the nodes of a section of the graph.
    pub fn run_section(&mut self, section: Section) -> Result<()> {
        self.run(section.nodes())
    }

    /// [`Program::run_section`] for work that is of no use unless it is complete. It ends early once the program is told to
    /// stop, on the CPU between ops. A GPU finishes what it was given, which is little enough to wait for.
    ///
    /// # Errors
    /// [`Error::Stopped`] if it ended early, and as [`Program::run`].
    pub fn run_unless_stopped(&mut self, section: Section) -> Result<()> {
        #[cfg(feature = "native")]
        if let Some(Stop { asked, .. }) = self.stop {
            if let Device::Cpu(program) = &mut self.device {
                return program.run_unless(section.nodes(), &asked).then_some(()).ok_or(Error::Stopped);
            }
            if asked() {
                return Err(Error::Stopped);
            }
            self.keep_queue_short()?;
        }
        self.run_section(section)
    }

    /// Lets `asked` end [`Program::run_unless_stopped`].
    #[cfg(feature = "native")]
    pub fn stop_if(&mut self, asked: fn() -> bool) {
        self.stop = Some(Stop { asked, queued: 0, most: 1, since: Instant::now() });
    }

    /// Counts a section that is about to be submitted; waits for those before it when they take half a second.
    #[cfg(feature = "native")]
    fn keep_queue_short(&mut self) -> Result<()> {
        if self.stop.as_ref().is_some_and(|stop| stop.queued >= stop.most) {
            pollster::block_on(self.ready())?;
        }
        let Some(stop) = &mut self.stop else { return Ok(()) };
        if stop.queued >= stop.most {
            let each = stop.since.elapsed().as_secs_f64() / f64::from(stop.queued);
            stop.most = (0.5 / each).clamp(1.0, 1024.0) as u32;
            (stop.queued, stop.since) = (0, Instant::now());
        }
        stop.queued += 1;
        Ok(())
    }

    /// Sets a whole tensor.
    ///
    /// # Panics
    /// When `data` and the tensor differ in bytes.
    pub fn write<T: bytemuck::NoUninit>(&mut self, t: TensorId, data: &[T]) {
        let tensor = self.plan.graph.tensor(t);
        let bytes: &[u8] = bytemuck::cast_slice(data);
        assert_eq!(bytes.len(), tensor.elements() * tensor.dtype.bytes(), "bytes of {}", tensor.name);
        self.write_bytes(t, 0, bytes);
    }

    /// Sets a slice of a tensor, from element `start`.
    ///
    /// # Panics
    /// When the slice exceeds the tensor, or its first byte or its length is not a multiple of 4 bytes.
    pub(crate) fn write_part<T: bytemuck::NoUninit>(&mut self, t: TensorId, start: usize, data: &[T]) {
        let tensor = self.plan.graph.tensor(t);
        let (bytes, at): (&[u8], usize) = (bytemuck::cast_slice(data), start * tensor.dtype.bytes());
        assert!(at + bytes.len() <= tensor.bytes() && (at | bytes.len()).is_multiple_of(4), "part of {}", tensor.name);
        self.write_bytes(t, at, bytes);
    }

    /// Writes to a tensor from its byte `at` on.
    fn write_bytes(&mut self, t: TensorId, at: usize, bytes: &[u8]) {
        let (slot, at) = (self.plan.slot(t), self.plan.start(t) + at);
        match &mut self.device {
            Device::Cpu(program) => program.bytes_mut(slot)[at..at + bytes.len()].copy_from_slice(bytes),
            Device::Wgpu(program) => program.write(slot, at, bytes),
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.write(slot, at, bytes),
        }
    }

    /// Reads whole tensors, after everything submitted so far has run.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn read_bytes(&mut self, tensors: &[TensorId]) -> Result<Vec<Vec<u8>>> {
        let slices: Vec<Slice> = tensors.iter().map(|t| slice(&self.plan, *t)).collect();
        match &mut self.device {
            Device::Cpu(program) => {
                Ok(slices.iter().map(|s| program.bytes(s.slot)[s.start..][..s.bytes].to_vec()).collect())
            }
            Device::Wgpu(program) => program.read(&slices).await,
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.read(&slices),
        }
    }

    /// Whether nodes may be submitted long before the device runs them, so that submitting early saves time.
    pub(crate) fn runs_later(&self) -> bool {
        matches!(self.device, Device::Wgpu(_))
    }

    /// Whether nodes have run when [`Program::run`] returns, so that reading between them costs nothing.
    pub(crate) fn runs_at_once(&self) -> bool {
        matches!(self.device, Device::Cpu(_))
    }

    /// Begins to read a tensor. What is submitted after this does not change what is read.
    pub(crate) async fn begin_read(&mut self, t: TensorId) -> Result<Reading> {
        if let Device::Wgpu(program) = &mut self.device {
            return Ok(Reading(Read::Staged(program.stage(&[slice(&self.plan, t)]))));
        }
        Ok(Reading(Read::Done(self.read_bytes(&[t]).await?.remove(0))))
    }

    /// The bytes of a tensor whose reading began. Fails as [`Program::read_bytes`] does.
    pub(crate) async fn end_read(&mut self, reading: Reading) -> Result<Vec<u8>> {
        match (reading.0, &mut self.device) {
            (Read::Done(bytes), _) => Ok(bytes),
            (Read::Staged(staged), Device::Wgpu(program)) => Ok(program.collect(staged).await?.remove(0)),
            (Read::Staged(_), _) => unreachable!("only wgpu stages"),
        }
    }

    /// Copies a tensor to the start of another, of the same type, after everything submitted so far.
    ///
    /// # Panics
    /// When the other is smaller, and on a device that runs nodes at once.
    pub(crate) fn copy(&mut self, from: TensorId, to: TensorId) {
        let (have, into) = (self.plan.graph.tensor(from), self.plan.graph.tensor(to));
        assert!(have.dtype == into.dtype && have.elements() <= into.elements(), "copy of {}", have.name);
        let bytes = have.elements() * have.dtype.bytes();
        let Device::Wgpu(program) = &mut self.device else { panic!("a copy on a device that runs nodes at once") };
        program.copy(self.plan.slot(from), self.plan.slot(to), bytes);
    }

    /// Reads one tensor as elements of type `T`, whatever its own type. Fails as [`Program::read_bytes`] does.
    pub async fn fetch<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&mut self, t: TensorId) -> Result<Vec<T>> {
        let bytes = self.read_bytes(&[t]).await?.remove(0);
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Waits until everything submitted so far has run.
    ///
    /// # Errors
    /// When the device failed meanwhile.
    pub async fn ready(&mut self) -> Result<()> {
        match &mut self.device {
            Device::Cpu(_) => Ok(()),
            Device::Wgpu(program) => program.read(&[Slice { slot: 0, start: 0, bytes: 4 }]).await.map(|_| ()),
            #[cfg(feature = "cuda")]
            Device::Cuda(program) => program.read(&[]).map(|_| ()),
        }
    }

    /// [`Program::fetch`] for callers that may block.
    #[cfg(feature = "native")]
    pub fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&mut self, t: TensorId) -> Result<Vec<T>> {
        pollster::block_on(self.fetch(t))
    }
}

/// What a caller may fix about a device. The default leaves every choice to the program.
#[cfg(feature = "native")]
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The GPU for wgpu or CUDA: its index in [`adapters`], or a part of its name.
    pub adapter: Option<String>,
    /// Threads of the CPU; by default one for each core.
    pub threads: Option<usize>,
    /// Instruction-set level of the CPU; by default the best.
    pub level: Option<Level>,
    /// Layout of ternary weights for decoding on the CPU; by default the fastest as measured.
    pub layout: Option<Layout>,
}

/// Opens a backend by name: `cpu`, `wgpu`, `cuda` or `auto`. `auto` chooses wgpu if an adapter is named or a real GPU exists,
/// and otherwise the CPU. It never chooses CUDA, which has not run on a real GPU yet. [`Backend::describe`] tells the choice.
///
/// # Errors
/// When the name is unknown, the device cannot be opened, or an option is given that the backend does not take.
#[cfg(feature = "native")]
pub fn open(name: &str, options: &Options) -> Result<Backend> {
    let Options { adapter, threads, level, layout } = options;
    // An empty environment variable counts as unset.
    let adapter = adapter.as_deref().filter(|adapter| !adapter.is_empty());
    let name = match name {
        "auto" if adapter.is_some() || adapters().iter().any(|a| a.is_gpu()) => "wgpu",
        "auto" => "cpu",
        name => name,
    };
    let refuse = |flag: &str, variable: &str| {
        Err(Error::usage(format!("{flag} (or {variable}): the backend is {name}, which has no use for it")))
    };
    match name {
        "cuda" if cfg!(not(feature = "cuda")) => Err(Error::usage(
            "--backend cuda: this program was built without CUDA; build it with `cargo build --release --features cuda`",
        )),
        "cpu" if adapter.is_some() => refuse("--adapter", "NANOTERN_ADAPTER"),
        "cpu" => {
            let cpu = Cpu::new(level.unwrap_or_else(Level::detect), *threads)?;
            Ok(Backend::Cpu(layout.map_or(Ok(cpu.clone()), |layout| cpu.with_layout(layout))?))
        }
        "wgpu" | "cuda" if threads.is_some() => refuse("--threads", "NANOTERN_THREADS"),
        "wgpu" | "cuda" if level.is_some() => refuse("--cpu-level", "NANOTERN_CPU_LEVEL"),
        "wgpu" | "cuda" if layout.is_some() => refuse("--cpu-layout", "NANOTERN_CPU_LAYOUT"),
        "wgpu" => Ok(Backend::Wgpu(Wgpu::open(adapter)?)),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Backend::Cuda(Cuda::open(adapter)?)),
        _ => Err(Error::usage(format!("--backend {name}: choose auto, cpu, wgpu or cuda"))),
    }
}
