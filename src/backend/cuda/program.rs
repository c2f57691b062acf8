//! A plan on a CUDA device: one buffer for each slot, one launch for each pass of a node or one for a captured section, all in
//! one stream.

use super::super::Slice;
use super::graphs::{Captured, Graphs, How};
use super::{Cuda, Loaded, failed};
use crate::error::mib;
use crate::graph::{Access, Node, Plan, TensorId};
use crate::{Error, Result};
use cpu_kernels::ArgWords;
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the smallest buffer, and what every buffer is a multiple of: one vec4, the widest element of any shader.
const MIN_BUFFER: usize = 16;
/// Most blocks of a CUDA grid in x, y and z.
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// An op's `Args`. A kernel takes them by value and reads only the words of its own uniform.
#[repr(transparent)]
struct Words(ArgWords);

#[expect(unsafe_code, reason = "only we can know which types a kernel may take")]
// SAFETY: plain words, laid out as the shader's struct of 4-byte fields.
unsafe impl DeviceRepr for Words {}

struct Step {
    op: &'static str,
    /// Those with blocks, each with their number.
    passes: Vec<(Loaded, [u32; 3])>,
    args: Words,
    /// Address and bytes of each buffer, in the order of the op table; the scratch memory is the last.
    buffers: Vec<(u64, u64)>,
}

pub struct CudaProgram {
    on: String,
    stream: Arc<CudaStream>,
    /// One for each slot.
    buffers: Vec<CudaSlice<u8>>,
    /// In which passes hand results on.
    scratch: CudaSlice<u8>,
    steps: Vec<Step>,
    graphs: Graphs,
    /// An error of a call that could not return it.
    fault: Option<Error>,
}

impl CudaProgram {
    pub(super) fn new(on: &Cuda, plan: &Plan) -> Result<Self> {
        let name = &on.info.name;
        let buffer = |bytes: usize| {
            let what = format!("making a buffer of {} MiB", mib(bytes as u64).floor());
            let bytes = bytes.max(MIN_BUFFER).next_multiple_of(MIN_BUFFER);
            on.stream.alloc_zeros::<u8>(bytes).map_err(|e| failed(name, &what, e))
        };
        let buffers = plan.slots.iter().map(|slot| buffer(slot.bytes)).collect::<Result<Vec<_>>>()?;
        let words = |node: &Node| on.code(node).scratch(&node.args).unwrap_or(0);
        let scratch = buffer(plan.graph.nodes.iter().map(words).max().unwrap_or(0).saturating_mul(4))?;
        let slices = slices(&buffers, &on.stream);
        let shared = (scratch.device_ptr(&on.stream).0, scratch.len() as u64);
        // Allocation is asynchronous, so a lack of memory may be reported only here.
        on.stream.synchronize().map_err(|e| failed(name, "making buffers", e))?;
        on.compile(plan)?;
        let steps = plan.graph.nodes.iter().map(|node| step(on, plan, &slices, shared, node)).collect::<Result<_>>()?;
        Ok(CudaProgram {
            on: name.clone(),
            stream: on.stream.clone(),
            buffers,
            scratch,
            steps,
            graphs: Graphs::default(),
            fault: None,
        })
    }

    /// Bytes of the scratch memory.
    pub(in super::super) fn scratch_bytes(&self) -> usize {
        self.scratch.len()
    }

    /// Launches of a range of nodes. A section that was captured takes one instead.
    pub(in super::super) fn dispatches(&self, nodes: Range<usize>) -> usize {
        self.steps[nodes].iter().map(|step| step.passes.len()).sum()
    }

    /// Gives slots more room, up to so many bytes each: (slot, bytes).
    pub(in super::super) fn grow(&mut self, plan: &Plan, sizes: &[(usize, usize)]) -> Result<()> {
        let grown = sizes.iter().try_for_each(|(slot, bytes)| {
            let old = &self.buffers[*slot];
            if *bytes > old.len() {
                let mut new = self.stream.alloc_zeros::<u8>(bytes.next_multiple_of(MIN_BUFFER))?;
                self.stream.memcpy_dtod(old, &mut new.slice_mut(..old.len()))?;
                self.stream.synchronize()?;
                self.buffers[*slot] = new;
            }
            Ok(())
        });
        self.graphs.forget();
        let slices = slices(&self.buffers, &self.stream);
        for (node, step) in plan.graph.nodes.iter().zip(&mut self.steps) {
            let buffers = node.tensors.iter().map(|t| bound(plan, &slices, *t));
            // The scratch memory, if any, stays.
            step.buffers.iter_mut().zip(buffers).for_each(|(old, new)| *old = new);
        }
        grown.map_err(|e| self.failed("making larger buffers", e))
    }

    fn failed(&self, what: &str, error: DriverError) -> Error {
        failed(&self.on, what, error)
    }

    pub(in super::super) fn run(&mut self, plan: &Plan, nodes: Range<usize>) -> Result<()> {
        self.fault.take().map_or(Ok(()), Err)?;
        match self.graphs.how(plan, &nodes) {
            How::Launches => self.launch(nodes),
            How::Graph(graph) => graph.launch().map_err(|e| failed(&self.on, "launching a section", e)),
            How::Capture => self.capture(nodes),
        }
    }

    /// Captures a section and launches it, or launches its nodes where the driver refuses.
    fn capture(&mut self, nodes: Range<usize>) -> Result<()> {
        let captured =
            Captured::new(&self.stream, || self.launch(nodes.clone()), |e| self.failed("capturing a section", e));
        let graph = captured.and_then(|graph| match graph.launch() {
            Ok(()) => Ok(graph),
            Err(e) => Err(self.failed("launching a section", e)),
        });
        match graph {
            Ok(graph) => self.graphs.keep(nodes, Some(graph)),
            Err(error @ Error::DeviceLost(_)) => return Err(error),
            Err(error) => {
                // A closed standard error is no reason to stop.
                let _ = writeln!(std::io::stderr(), "note: ops are launched one by one: {error}");
                self.graphs.keep(nodes.clone(), None);
                self.launch(nodes)?;
            }
        }
        Ok(())
    }

    /// Launches nodes one by one.
    fn launch(&self, nodes: Range<usize>) -> Result<()> {
        let passes = self.steps[nodes].iter().flat_map(|step| step.passes.iter().map(move |pass| (step, pass)));
        for (step, (Loaded { function, block, shared }, grid)) in passes {
            let mut launch = self.stream.launch_builder(function);
            launch.arg(&step.args);
            for (address, bytes) in &step.buffers {
                launch.arg(address).arg(bytes);
            }
            #[expect(unsafe_code, reason = "launching a kernel")]
            // SAFETY: the parameters are those of the translated shader, whose bindings a test compares with the op table. The
            // buffers live as long as the program, and no written buffer is bound twice. Every index follows from `Args` that
            // the graph's builders checked against the tensors' shapes, or is bounded in the shader.
            let done = unsafe {
                launch.launch(LaunchConfig {
                    grid_dim: (*grid).into(),
                    block_dim: (*block).into(),
                    shared_mem_bytes: *shared,
                })
            };
            done.map_err(|e| self.failed(&format!("launching {}", step.op), e))?;
        }
        Ok(())
    }

    /// Writes to a slot from byte `at`. The next call that can return an error returns that of this one.
    pub(in super::super) fn write(&mut self, slot: usize, at: usize, bytes: &[u8]) {
        let mut slice = self.buffers[slot].slice_mut(at..at + bytes.len());
        if let Err(error) = self.stream.memcpy_htod(bytes, &mut slice) {
            let error = self.failed("writing to a buffer", error);
            self.fault.get_or_insert(error);
        }
    }

    /// Reads slices of slots after everything launched so far.
    pub(in super::super) fn read(&mut self, slices: &[Slice]) -> Result<Vec<Vec<u8>>> {
        self.fault.take().map_or(Ok(()), Err)?;
        let read = |Slice { slot, start, bytes }: &Slice| {
            let mut found = vec![0; *bytes];
            self.stream.memcpy_dtoh(&self.buffers[*slot].slice(*start..*start + *bytes), &mut found)?;
            Ok(found)
        };
        let found = slices.iter().map(read).collect::<Result<Vec<_>, DriverError>>();
        let found = found.and_then(|found| self.stream.synchronize().map(|()| found));
        found.map_err(|e| self.failed("reading back", e))
    }
}

/// Address and bytes of each slot's buffer.
fn slices(buffers: &[CudaSlice<u8>], stream: &CudaStream) -> Vec<(u64, u64)> {
    buffers.iter().map(|b| (b.device_ptr(stream).0, b.len() as u64)).collect()
}

/// Address and bytes of what a node binds of a tensor: a view's part of a buffer, or the whole buffer.
fn bound(plan: &Plan, slices: &[(u64, u64)], t: TensorId) -> (u64, u64) {
    let (address, bytes) = slices[plan.slot(t)];
    plan.view(t).map_or((address, bytes), |range| (address + range.start as u64, range.len() as u64))
}

/// The launches of a node; `slices` are those of [`slices()`], `scratch` is the scratch memory.
///
/// # Panics
/// When a written buffer is bound twice: kernels rely on `__restrict__`.
fn step(on: &Cuda, plan: &Plan, slices: &[(u64, u64)], scratch: (u64, u64), node: &Node) -> Result<Step> {
    let (op, code) = (node.op, on.code(node));
    let grids = code.grids(&node.args);
    if let Some(grid) = grids.iter().find(|grid| grid.iter().zip(MAX_GRID).any(|(n, limit)| *n > limit)) {
        let output = plan.graph.outputs(node).next().map_or("nothing", |t| &plan.graph.tensor(t).name);
        return Err(Error::Device(format!(
            "{} of {output} takes {grid:?} blocks, but CUDA allows {MAX_GRID:?}: use a smaller batch or chunk",
            op.name
        )));
    }
    let slots: Vec<usize> = node.tensors.iter().map(|t| plan.slot(*t)).collect();
    for (i, binding) in op.bindings.iter().enumerate().filter(|(_, b)| b.access != Access::Read) {
        let others = slots.iter().enumerate().filter(|(j, slot)| *j != i && **slot == slots[i]).count();
        assert!(others == 0, "{} writes {} and has it bound twice", op.name, binding.name);
    }
    let passes = on.kernel(code).into_iter().zip(grids).filter(|(_, grid)| !grid.contains(&0)).collect();
    let scratch = code.scratch(&node.args).map(|_| scratch);
    let buffers = node.tensors.iter().map(|t| bound(plan, slices, *t)).chain(scratch).collect();
    Ok(Step { op: op.name, passes, args: Words(node.args), buffers })
}
