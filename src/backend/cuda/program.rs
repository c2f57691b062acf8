//! A plan on a device: one buffer a slot, one launch a node, all in one stream.

use super::{Cuda, failed};
use crate::graph::{Access, Node, Plan, Slot};
use crate::{Error, Result};
use cpu_kernels::ArgWords;
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use std::ops::Range;
use std::sync::Arc;

/// The smallest buffer: one vec4, which is the widest element a shader has.
const MIN_BUFFER: usize = 16;
/// Blocks that CUDA takes in x, y and z.
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// An op's `Args`: a kernel takes them by value, and reads as many of the words as its uniform has.
#[repr(transparent)]
struct Words(ArgWords);

#[expect(unsafe_code, reason = "what may be handed to a kernel is the caller's word")]
// SAFETY: plain words, laid out as the shader's struct of 4-byte fields.
unsafe impl DeviceRepr for Words {}

struct Step {
    op: &'static str,
    function: CudaFunction,
    args: Words,
    /// Address and bytes of each buffer, in the order of the op table.
    buffers: Vec<(u64, u64)>,
    grid: [u32; 3],
    block: [u32; 3],
}

pub struct CudaProgram {
    on: String,
    stream: Arc<CudaStream>,
    buffers: Vec<CudaSlice<u8>>,
    steps: Vec<Step>,
    /// What went wrong in a call that can return no error.
    fault: Option<Error>,
}

impl CudaProgram {
    pub(super) fn new(on: &Cuda, plan: &Plan) -> Result<Self> {
        let name = &on.info.name;
        let buffer = |slot: &Slot| {
            let what = format!("making a buffer of {} MiB", slot.bytes >> 20);
            let made = on.stream.alloc_zeros::<u8>(slot.bytes.max(MIN_BUFFER));
            made.map_err(|e| failed(name, &what, e))
        };
        let buffers = plan.slots.iter().map(buffer).collect::<Result<Vec<_>>>()?;
        let places: Vec<(u64, u64)> = buffers.iter().map(|b| (b.device_ptr(&on.stream).0, b.len() as u64)).collect();
        // Memory that is not there may only be missed here.
        on.stream.synchronize().map_err(|e| failed(name, "making buffers", e))?;
        on.compile(plan)?;
        let steps = plan.graph.nodes.iter().map(|node| step(on, plan, &places, node)).collect::<Result<_>>()?;
        Ok(CudaProgram { on: name.clone(), stream: on.stream.clone(), buffers, steps, fault: None })
    }

    fn failed(&self, what: &str, error: DriverError) -> Error {
        failed(&self.on, what, error)
    }

    pub(in super::super) fn run(&mut self, nodes: Range<usize>) -> Result<()> {
        self.fault.take().map_or(Ok(()), Err)?;
        for step in self.steps[nodes].iter().filter(|step| !step.grid.contains(&0)) {
            let mut launch = self.stream.launch_builder(&step.function);
            launch.arg(&step.args);
            for (address, bytes) in &step.buffers {
                launch.arg(address).arg(bytes);
            }
            #[expect(unsafe_code, reason = "launching a kernel")]
            // SAFETY: the parameters are those of the translated shader, whose bindings a test compares with the op table; the
            // buffers live as long as the program, and nothing that is written is bound twice. Every index follows from
            // `Args` that the graph's builders checked against the tensors' shapes, or is bounded in the shader.
            let done = unsafe {
                launch.launch(LaunchConfig {
                    grid_dim: step.grid.into(),
                    block_dim: step.block.into(),
                    shared_mem_bytes: 0,
                })
            };
            done.map_err(|e| self.failed(&format!("launching {}", step.op), e))?;
        }
        Ok(())
    }

    /// Writes to a slot from byte `at`. What goes wrong is said by the next call that can return an error.
    pub(in super::super) fn write(&mut self, slot: usize, at: usize, bytes: &[u8]) {
        let mut place = self.buffers[slot].slice_mut(at..at + bytes.len());
        if let Err(error) = self.stream.memcpy_htod(bytes, &mut place) {
            let error = self.failed("writing to a buffer", error);
            self.fault.get_or_insert(error);
        }
    }

    /// Reads the first bytes of slots, (slot, bytes) each, after all that was launched.
    pub(in super::super) fn read(&mut self, places: &[(usize, usize)]) -> Result<Vec<Vec<u8>>> {
        self.fault.take().map_or(Ok(()), Err)?;
        let read = |(slot, bytes): &(usize, usize)| {
            let mut found = vec![0; *bytes];
            self.stream.memcpy_dtoh(&self.buffers[*slot].slice(..*bytes), &mut found)?;
            Ok(found)
        };
        let found = places.iter().map(read).collect::<Result<Vec<_>, DriverError>>();
        let found = found.and_then(|found| self.stream.synchronize().map(|()| found));
        found.map_err(|e| self.failed("reading back", e))
    }
}

/// # Panics
/// When a written buffer is bound twice: kernels declare that this does not happen.
fn step(on: &Cuda, plan: &Plan, places: &[(u64, u64)], node: &Node) -> Result<Step> {
    let (op, grid) = (node.op, (node.op.grid)(&node.args));
    if grid.iter().zip(MAX_GRID).any(|(n, limit)| *n > limit) {
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
    let kernel = on.kernel(op);
    Ok(Step {
        op: op.name,
        function: kernel.function,
        args: Words(node.args),
        buffers: slots.iter().map(|slot| places[*slot]).collect(),
        grid,
        block: kernel.block,
    })
}
